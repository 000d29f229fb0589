"""Options, defined once: a field of a dataclass is a command's option, a key of a sweep's file and a part of a spec.

    num_epochs: float = option(3, "Passes over the training rows; 0 trains nothing.", flag="--epochs", minimum=0)

From such a field come the option `--epochs` with its help, group and bounds (`cli.options`), the key `num_epochs` of a
recipe in a sweep's file (`healing.recipe`), the words in a report and the command line that repeats a run. No torch.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from depthprune.errors import PlanError, UserError
from depthprune.plan import format_layers, parse_layers

KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
LAYERS, TEXTS = tuple[int, ...], tuple[str, ...]
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Switch:
    """A flag that sets its option to a fixed value, such as `--regression`.

    Args:
        flag: of the command.
        value: what it sets.
        help: what that means, in a sentence.
    """

    flag: str
    value: str
    help: str


@dataclass(frozen=True)
class About:
    """What `option` says of a field, apart from its name, type and default.

    Args:
        help: what it is, in a sentence.
        flag: of the command; `--` and the field's name by default.
        group: under which help lists it.
        minimum: the least value.
        above, below: what the value lies between, both excluded.
        choices: the values there are.
        usual: common values, in a sentence that follows a complaint.
        switches: flags for single values in place of one flag that takes the value.
        as_steps: a recipe of steps in which the value is written as a step.
        for_full: whether it applies where no layer is dropped; otherwise the full model has its default.
        for_step: whether a step of a recipe can have a value of its own.
    """

    help: str
    flag: str = ""
    group: str = "Training"
    minimum: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    usual: str = ""
    switches: tuple[Switch, ...] = ()
    as_steps: str = ""
    for_full: bool = True
    for_step: bool = True


@dataclass(frozen=True)
class Option:
    """A field as an option.

    Args:
        name: of the field, and of the key in a file.
        kind: of its values: `int`, `float`, `bool`, `str`, or a tuple; without the `None` of an optional one.
        default: its value where none is given.
        about: what else is known of it.
    """

    name: str
    kind: Any
    default: Any
    about: About

    @property
    def flag(self) -> str:
        """The option of the command."""
        return self.about.flag or f"--{self.name.replace('_', '-')}"

    def read(self, value: Any, said: str | None = None) -> Any:
        """Return a value of a file or of the command line as one of the option's kind, within its bounds.

        Args:
            said: what the option is called in complaints; its name by default.

        Raises:
            UserError: if it has another type, or is out of range.
        """
        if value is None and self.default is None:
            return None
        value = read_value(self.kind, said or self.name, value)
        self.check(value, said)
        return value

    def check(self, value: Any, said: str | None = None) -> None:
        """Refuse a value out of bounds.

        Raises:
            UserError: if it is out of range.
        """
        about, usual = self.about, f"; {self.about.usual}" if self.about.usual else ""
        if value is None:
            return
        if about.choices and value not in about.choices:
            near = difflib.get_close_matches(str(value), about.choices, n=1)
            guess = f"did you mean '{near[0]}'? It" if near else "it"
            raise UserError(f"there is no {self.name} '{value}'; {guess} is one of {', '.join(about.choices)}")
        outside = (
            (about.minimum is not None and not value >= about.minimum)
            or (about.above is not None and not value > about.above)
            or (about.below is not None and not value < about.below)
        )
        if outside:
            raise UserError(f"{said or self.name} {value:g} is out of range: it is {_range(about)}{usual}")

    def words(self, value: Any) -> Iterator[str]:
        """Yield the arguments that give the option this value on the command line; none for its default.

        >>> list(Option("freeze_layers", LAYERS, (), About("")).words((0, 1, 2)))
        ['--freeze-layers', '0-2']
        """
        if value == self.default:
            return
        if self.about.switches:
            yield next(switch.flag for switch in self.about.switches if switch.value == value)
        elif self.kind is bool:
            yield self.flag
        else:
            yield from (self.flag, as_text(value))


def option(default: Any, help: str, *, later: bool = False, **about: Any) -> Any:
    """Return a field of a dataclass that is an option.

    Args:
        default: its value where none is given.
        help: what it is, in a sentence.
        later: whether it was added to a spec after results had been stored; see `specs`.
        about: see `About`.
    """
    return field(default=default, metadata={"option": About(help, **about), "later": later})


@lru_cache(maxsize=64)
def options_of(cls: type) -> Mapping[str, Option]:
    """Return the options among the fields of a dataclass, by name, in their order."""
    kinds = get_type_hints(cls)
    return {
        item.name: Option(item.name, _kind(kinds[item.name]), item.default, item.metadata["option"])
        for item in fields(cls)
        if "option" in item.metadata and item.default is not MISSING
    }


def read_value(kind: Any, said: str, value: Any) -> Any:
    """Return a value, given as itself or as text, as one of a kind.

    >>> read_value(float, "rate", "2e-5"), read_value(LAYERS, "layers", "0,2-3"), read_value(bool, "cased", "true")
    (2e-05, (0, 2, 3), True)

    Args:
        said: what complaints call it.

    Raises:
        UserError: if it has another type.
    """
    if kind == LAYERS:
        text = value if isinstance(value, str) else ",".join(map(str, _listed(value)))
        try:
            return tuple(sorted(set(parse_layers(text)))) if text else ()
        except PlanError as error:
            raise UserError(f"{said}: {error}") from None
    if kind == TEXTS:
        given = value.split(",") if isinstance(value, str) else _listed(value)
        if not all(isinstance(item, str) for item in given):
            raise UserError(f"{said} is text, not {value!r}")
        return tuple(item.strip() for item in given if item.strip())
    if isinstance(value, str) and kind in (int, float, bool):
        try:
            return TRUTHS[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError):
            raise UserError(f"{said} is {KINDS[kind]}, not '{value}'") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in KINDS and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise UserError(f"{said} is {KINDS[kind]}, not {value!r}")
    return value


def as_text(value: Any) -> str:
    """Write a value the way `read_value` reads it; steps of a recipe with `+` between them.

    >>> as_text(2e-5), as_text(3.0), as_text((0, 1, 2)), as_text(("a", "b")), as_text(True)
    ('2e-05', '3', '0-2', 'a,b', 'true')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        if all(isinstance(item, int) for item in value):
            return format_layers(value)
        return ("," if all(isinstance(item, str) for item in value) else "+").join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _kind(hint: Any) -> Any:
    """Return the type of an annotation without its None."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    return hint


def _range(about: About) -> str:
    if about.minimum is not None:
        return f"{about.minimum:g} or more" + (f", and below {about.below:g}" if about.below is not None else "")
    if about.above is not None and about.below is not None:
        return f"between {about.above:g} and {about.below:g}"
    return f"above {about.above:g}" if about.above is not None else f"below {about.below:g}"
