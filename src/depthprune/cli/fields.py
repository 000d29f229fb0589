"""A command's options from the fields of a dataclass, so that each is defined once (`specs.options`). No torch.

A command takes the dataclass as one parameter, and `spread` makes of it an option for each field:

    def run(model: options.Model, heal: Annotated[HealSpec, Fields()] = HealSpec()) -> None: ...

    app.command()(spread(run))      # --epochs, --batch-size, --learning-rate, …

`of` gives a single field's option to a parameter of a command's own.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args

import typer

from depthprune.errors import UserError
from depthprune.specs import HealSpec
from depthprune.specs.options import Option, options_of


@dataclass(frozen=True)
class Fields:
    """Marks a parameter of a command that stands for the options of its type, a dataclass.

    Args:
        only: names of the fields that are options here; all if empty.
        without: names of fields that are not.
        full: only those that apply where no layer is dropped.
        given: the dataclass, where its defaults are not the command's: the parameter is then a dictionary of the
            entries that were given, and no others.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    full: bool = False
    given: type | None = None

    def chosen(self, cls: type) -> dict[str, Option]:
        """Return the options of a dataclass that a command has."""
        return {
            name: item
            for name, item in options_of(cls).items()
            if (not self.only or name in self.only)
            and name not in self.without
            and (item.about.for_full or not self.full)
        }


def of(cls: type, name: str, switch: str | None = None) -> Any:
    """Return what typer is to know of an option that is a field of a dataclass.

    Args:
        switch: which of the field's switches, by the value that it sets.
    """
    item = options_of(cls)[name]
    return _info(item) if switch is None else _switches(item)[switch]


def spread(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose parameters marked by `Fields` are an option for each field."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, dict[str, Option], bool]] = {}
    for parameter in inspect.signature(function).parameters.values():
        marker = next(
            (one for one in getattr(parameter.annotation, "__metadata__", ()) if isinstance(one, Fields)), None
        )
        if marker is None:
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
            continue
        cls = marker.given or get_args(parameter.annotation)[0]
        groups[parameter.name] = cls, marker.chosen(cls), marker.given is not None
        for item in groups[parameter.name][1].values():
            parameters += _parameters(item, no_default=marker.given is not None)
    if not groups:
        return function

    def command(**given: Any) -> None:
        for name, (cls, items, entries) in groups.items():
            values = _taken(items, given)
            made = _made(cls, items, values)
            given[name] = {key: getattr(made, key) for key in values} if entries else made
        function(**given)

    command.__name__, command.__doc__, command.__module__ = function.__name__, function.__doc__, function.__module__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    return command


def parameter_names(items: Mapping[str, Option]) -> list[str]:
    """Return the names of the parameters that options become."""
    return [parameter.name for item in items.values() for parameter in _parameters(item)]


def given_entries(value: Any) -> dict[str, Any]:
    """Return the options in a dataclass that do not have their defaults, by name."""
    items = options_of(type(value)).values()
    return {item.name: getattr(value, item.name) for item in items if getattr(value, item.name) != item.default}


def _parameters(item: Option, *, no_default: bool = False) -> Iterator[inspect.Parameter]:
    """Yield the parameters of a command that an option becomes: one, or one for each of its switches.

    Args:
        no_default: that of the field is not the command's.
    """
    for value, info in _switches(item).items():
        yield inspect.Parameter(value, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, info])
    if not item.about.switches:
        kind: Any = item.kind if item.kind in (bool, int, float, str) else str
        empty = no_default or item.default in (None, "", ())
        hint = Annotated[kind | None, _info(item)] if empty else Annotated[kind, _info(item)]
        default = None if empty else item.default
        yield inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _info(item: Option) -> Any:
    return typer.Option(
        item.flag,
        help=item.about.help,
        min=item.about.minimum,  # pyright: ignore[reportArgumentType]
        show_default=item.default not in (None, "", ()),
        rich_help_panel=item.about.group,
    )


def _switches(item: Option) -> dict[str, Any]:
    return {
        switch.value: typer.Option(switch.flag, help=switch.help, rich_help_panel=item.about.group)
        for switch in item.about.switches
    }


def _taken(items: Mapping[str, Option], given: dict[str, Any]) -> dict[str, Any]:
    """Take the values of options that were given out of a command's arguments.

    Raises:
        UserError: two switches of one option.
    """
    values = {}
    for name, item in items.items():
        if item.about.switches:
            on = [switch for switch in item.about.switches if given.pop(switch.value)]
            if len(on) > 1:
                raise UserError(f"{' and '.join(switch.flag for switch in on)} exclude each other; give one")
            values |= {name: on[0].value} if on else {}
        elif (value := given.pop(name)) is not None:
            values[name] = value
    return values


def _made(cls: type, items: Mapping[str, Option], values: Mapping[str, Any]) -> Any:
    """Return a dataclass made of the values of its options.

    Raises:
        UserError: a value that cannot be.
    """
    if issubclass(cls, HealSpec):
        from depthprune.healing.recipe import read_recipe  # which has the registry of methods

        return read_recipe(values, lambda name: items[name].flag, cls)
    return cls(**{name: items[name].read(value, items[name].flag) for name, value in values.items()})
