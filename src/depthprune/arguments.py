"""Check the argument types of public functions, so that a wrong type is an error message and not a traceback.

The annotations are checked. What cannot be checked at run time (protocols, names that are imported for type checking
only) is accepted.
"""

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from depthprune.errors import UserError

Function = TypeVar("Function", bound=Callable[..., Any])

WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    Path: "a path",
    type(None): "None",
}
HINTS = {
    "model": "a model in memory is cut with depthprune.drop_layers, and save_pretrained makes a folder of it",
}


def checked(name: str) -> Callable[[Function], Function]:
    """Check arguments against the annotations of a function.

    Args:
        name: the function's public name.

    >>> @checked("double")
    ... def double(count: int | None = None) -> int: ...
    >>> double("two")
    Traceback (most recent call last):
    depthprune.errors.UserError: double: count is a whole number or None, not 'two'
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError as error:
                raise UserError(f"{name}: {error}; it is called as {name}({_needed(signature)})") from None
            for argument, value in given.items():
                parameter = signature.parameters[argument]
                if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    _check(f"{name}: {argument}", value, parameter.annotation, HINTS.get(argument))
            return function(*args, **kwargs)

        return call  # pyright: ignore[reportReturnType]

    return decorate


def _needed(signature: inspect.Signature) -> str:
    needed = [name for name, each in signature.parameters.items() if each.default is each.empty]
    return ", ".join([*needed, "…"] if len(needed) < len(signature.parameters) else needed)


def _check(name: str, value: Any, kind: Any, hint: str | None = None) -> None:
    if not _fits(value, kind):
        more = f"; {hint}" if hint is not None and hasattr(value, "save_pretrained") else ""
        raise UserError(f"{name} is {_words(kind)}, not {_shown(value)}{more}")
    if is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            _check(f"{name}.{item.name}", getattr(value, item.name), item.type)


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value matches an annotation, as far as that can be checked."""
    origin, inside = get_origin(kind), get_args(kind)
    if isinstance(kind, TypeVar):
        kind = kind.__bound__
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inside)
    if kind is None or kind is type(None):
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if origin is tuple and isinstance(value, tuple):
        return len(inside) != 2 or inside[1] is not Ellipsis or all(_fits(item, inside[0]) for item in value)
    if origin is Iterable:
        return isinstance(value, Iterable) and not isinstance(value, str | bytes)
    if origin in (Mapping, dict, list, tuple):
        return isinstance(value, origin)
    if origin is Callable or kind is Callable:
        return callable(value)
    if isinstance(kind, type) and origin is None and not getattr(kind, "_is_protocol", False):
        return isinstance(value, kind)
    return True


def _words(kind: Any) -> str:
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        words = list(dict.fromkeys(_words(one) for one in inside))
        return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    if origin in (tuple, list, Iterable):
        return f"a list of {_plural(inside[0])}" if inside else "a list"
    if origin in (Mapping, dict):
        return "a dictionary"
    if origin is Callable:
        return "a function"
    if isinstance(kind, TypeVar):
        return _words(kind.__bound__)
    name = getattr(kind, "__name__", str(kind))
    return WORDS.get(kind, f"an {name}" if name[:1] in "AEIOU" else f"a {name}")


def _plural(kind: Any) -> str:
    return {str: "texts", int: "whole numbers", float: "numbers", Path: "paths"}.get(kind, "values")


def _shown(value: Any) -> str:
    """Show a plain value as it is, and anything else by its type."""
    if value is None or isinstance(value, str | int | float | bool):
        return repr(value)
    return f"a {type(value).__name__}"
