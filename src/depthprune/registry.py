"""Named parts: strategies, tasks.

A part is a function in the module that owns the registry or in one of its folder, all of which are imported
the first time a name is asked for, so a new part is one new file and no list to edit. Other distributions add
parts through the entry-point group `depthprune.<kind>` (each entry point names a module to import).
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from depthprune.errors import UserError

Part = TypeVar("Part")


def unknown(kind: str, name: str, known: list[str]) -> UserError:
    """Return the error for a name that nothing answers to, with the nearest known one.

    >>> print(unknown("strategy", "topp", ["bottom", "top"]))
    no strategy is named 'topp'; did you mean 'top'? (known: bottom, top)
    """
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"; did you mean '{near[0]}'?" if near else ""
    return UserError(f"no {kind} is named '{name}'{guess} (known: {', '.join(known)})")


class Registry(Generic[Part]):
    """Names and the parts behind them, found in one module or in the modules of one package."""

    def __init__(self, kind: str, package: str):
        self.kind = kind
        self._package = package
        self._parts: dict[str, Part] = {}
        self._discovered = False

    def add(self, name: str, part: Part) -> Part:
        """Register `part`; two parts of one name are a programming error."""
        assert name not in self._parts, f"two of {self.kind} are named {name!r}"
        self._parts[name] = part
        return part

    def get(self, name: str) -> Part:
        """Return the part called `name`.

        Raises:
            UserError: there is none; the message names the nearest.
        """
        self._discover()
        if not isinstance(name, str):
            raise UserError(
                f"no {self.kind} is named {name!r}; give its name as text (known: {', '.join(self.names())})"
            )
        if name not in self._parts:
            raise unknown(self.kind, name, self.names())
        return self._parts[name]

    def names(self) -> list[str]:
        """Return all names in alphabetical order."""
        self._discover()
        return sorted(self._parts)

    def items(self) -> Iterator[tuple[str, Part]]:
        """Yield (name, part) in alphabetical order."""
        for name in self.names():
            yield name, self._parts[name]

    def _discover(self) -> None:
        if self._discovered:
            return
        home = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(getattr(home, "__path__", ())):
            importlib.import_module(f"{self._package}.{module.name}")
        for entry in entry_points(group=f"depthprune.{self.kind}"):
            entry.load()
        self._discovered = True  # last: what failed to import fails again, and is not missing without a word


def first_line(part: Callable) -> str:
    """Return the first line of a part's docstring, which is its description in lists."""
    return (part.__doc__ or "").strip().split("\n")[0]
