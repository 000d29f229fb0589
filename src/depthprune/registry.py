"""Named parts (strategies, scores, tasks, metrics, healing methods, …) and the extensions that add more of them.

A part is registered by the module that defines it, which is the registry's own or one in its folder. All of these are
imported the first time a name is asked for, so a new part is one new file, and there is no list to edit.

Another distribution adds parts through the entry-point group `depthprune.<kind>`: each entry point names a module to
import, which registers its parts with the same decorators. An extension that cannot be imported, registers something of
another type, or a name that is taken already, is left out with a warning; asking for one of its names is an error that
names the distribution and the entry point. Everything else goes on working.
"""

import difflib
import importlib
import logging
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from depthprune.errors import ExtensionError, UserError

logger = logging.getLogger(__name__)
Part = TypeVar("Part")
Value = TypeVar("Value")


@dataclass(eq=False)
class Extension:
    """An entry point of another distribution.

    Args:
        entry: the entry point.
        added: (registry, name, module) of each part that it registered.
        names: (kind, name) of each part that it registered or tried to register.
        problem: why it cannot be used; empty where nothing is wrong.
        reported: whether the user has been told.
    """

    entry: EntryPoint
    added: "list[tuple[Registry, str, str]]" = field(default_factory=list)
    names: set[tuple[str, str]] = field(default_factory=set)
    problem: str = ""
    reported: bool = False

    @property
    def package(self) -> str:
        """The name of the distribution."""
        return self.entry.dist.name if self.entry.dist is not None else self.entry.value

    def __str__(self) -> str:
        return f"the extension '{self.package}' (entry point '{self.entry.name}' of {self.entry.group})"

    def error(self) -> ExtensionError:
        """Return what is wrong with it as an error."""
        self.reported = True
        return ExtensionError(f"{self} {self.problem}; fix or uninstall it")

    def load(self, kind: str) -> None:
        """Import what the entry point names. Whatever goes wrong becomes `problem`, and its parts are removed again."""
        module = self.entry.value.partition(":")[0].strip()
        imported_before = module in sys.modules
        _loading.append(self)
        try:
            self.entry.load()
            if not self.names and not imported_before:
                self.problem = f"registers no {kind}"
        except _CannotRegisterError as error:
            self.problem = str(error)
        except (Exception, SystemExit) as error:  # the code of others may raise anything, and ours has to go on
            self.problem = f"cannot be imported ({type(error).__name__}: {first_line_of(str(error))})"
        finally:
            _loading.pop()
        if self.problem:
            for registry, name, origin in self.added:
                if origin == module or origin not in sys.modules:
                    registry.remove(name)


class _CannotRegisterError(ExtensionError):
    """What an extension registers is refused while it is being imported."""


_warned: set[str] = set()
_loading: list[Extension] = []  # innermost last: importing an extension can make another registry load its own


def first_line_of(text: str) -> str:
    """Return the first line of a text.

    >>> first_line_of("  one\\ntwo")
    'one'
    """
    return text.strip().split("\n")[0]


def unknown(kind: str, name: str, known: Iterable[str], among: "Iterable[Registry]" = ()) -> UserError:
    """Return the error for a name that does not exist, with the nearest known one.

    Where an extension that was left out registers that name, the error is about the extension.

    Args:
        kind: of what there is none.
        name: the name.
        known: all names.
        among: the registries that were searched.

    >>> print(unknown("strategy", "topp", ["bottom", "top"]))
    no strategy is named 'topp'; did you mean 'top'? (known: bottom, top)
    """
    known, among = list(known), list(among)
    for registry in among:
        extension = registry.extension_behind(name)
        if extension is not None:
            return extension.error()
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"; did you mean '{near[0]}'?" if near else ""
    left_out = ""
    for extension in (extension for registry in among for extension in registry.left_out()):
        extension.reported = True
        left_out += f"; {extension} is left out: it {extension.problem}"
    return UserError(f"no {kind} is named '{name}'{guess} (known: {', '.join(known)}){left_out}")


class Registry(Generic[Part]):
    """Names and the parts behind them, found in one module or in the modules of one package.

    Args:
        kind: what a part is, in messages and in the name of the entry-point group.
        package: the module or package whose modules register the parts.
        part_type: what a part has to be an instance of.
    """

    def __init__(self, kind: str, package: str, part_type: type = object):
        self.kind = kind
        self._package = package
        self._type = part_type
        self._parts: dict[str, Part] = {}
        self._extensions: list[Extension] = []
        self._own_imported = self._discovered = False

    def add(self, name: str, part: Part) -> Part:
        """Register `part`; two parts of one name are a programming error.

        Raises:
            ExtensionError: if an extension that is being loaded registers another type, or a name that is taken.
        """
        module = _importing_module()
        if _loading and module.partition(".")[0] != self._package.partition(".")[0]:
            self._add_from(_loading[-1], name, part)
            _loading[-1].added.append((self, name, module))
        assert name not in self._parts, f"two of {self.kind} are named {name!r}"
        self._parts[name] = part
        return part

    def remove(self, name: str) -> None:
        """Forget the part called `name`."""
        self._parts.pop(name, None)

    def get(self, name: str) -> Part:
        """Return the part called `name`.

        Raises:
            UserError: if there is none; the message has the nearest name, or names the extension that should have
                registered it.
        """
        self._discover()
        if not isinstance(name, str):
            raise UserError(
                f"no {self.kind} is named {name!r}; give its name as text (known: {', '.join(self.names())})"
            )
        if name not in self._parts or self.extension_behind(name) is not None:
            raise unknown(self.kind, name, self.names(), among=(self,))
        self._warn()
        return self._parts[name]

    def names(self) -> list[str]:
        """Return all names in alphabetical order."""
        self._discover()
        return sorted(self._parts)

    def items(self) -> Iterator[tuple[str, Part]]:
        """Yield (name, part) in alphabetical order."""
        names = self.names()
        self._warn()
        for name in names:
            yield name, self._parts[name]

    def left_out(self) -> list[Extension]:
        """Return the extensions of this kind that cannot be used."""
        self._discover()
        return [extension for extension in self._extensions if extension.problem]

    def extension_behind(self, name: str) -> Extension | None:
        """Return the extension that is left out and registers `name`, if there is one."""
        for extension in self.left_out():
            if (self.kind, name) in extension.names or (extension.entry.name == name and name not in self._parts):
                return extension
        return None

    def check_returned(self, name: str, value: Any, expected: type[Value]) -> Value:
        """Return what the part `name` returned, if it is of the type that it has to be.

        Raises:
            ExtensionError: if it is of another type; the message names the extension that registers the part.
        """
        if isinstance(value, expected):
            return value
        raise self.fault(name, f"returned {type(value).__name__} instead of {expected.__name__}")

    def fault(self, name: str, problem: str) -> ExtensionError:
        """Return an error about the part `name`, with the extension that registers it."""
        extensions = (extension for extension in self._extensions if (self.kind, name) in extension.names)
        source = "".join(f" of {extension}" for extension in extensions)
        return ExtensionError(f"the {self.kind} '{name}'{source} {problem}; fix or uninstall the extension")

    def _add_from(self, extension: Extension, name: str, part: Part) -> None:
        """Check a part of an extension.

        Raises:
            ExtensionError: if it is of another type, or its name is taken.
        """
        self._import_own()  # our own parts have their names first
        holders = [each.package for each in self._extensions if (self.kind, name) in each.names and not each.problem]
        extension.names.add((self.kind, str(name)))
        if extension not in self._extensions:
            self._extensions.append(extension)
        if not isinstance(name, str) or not isinstance(part, self._type):
            raise _CannotRegisterError(
                f"registers a {type(part).__name__} as the {self.kind} {name!r}; it has to be a {self._type.__name__}"
            )
        if name in self._parts:
            raise _CannotRegisterError(f"registers the {self.kind} '{name}', which '{[*holders, 'depthprune'][0]}' has")

    def _discover(self) -> None:
        if self._discovered:
            return
        self._import_own()  # what fails to import fails again at the next call, and is not silently missing
        self._discovered = True  # before extensions are loaded: one may ask for names while it is imported
        entries = entry_points(group=f"depthprune.{self.kind}")
        for entry in sorted(entries, key=lambda entry: (entry.dist.name if entry.dist else "", entry.name)):
            extension = Extension(entry)
            self._extensions.append(extension)
            extension.load(self.kind)

    def _import_own(self) -> None:
        if self._own_imported:
            return
        home = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(getattr(home, "__path__", ())):
            importlib.import_module(f"{self._package}.{module.name}")
        self._own_imported = True

    def _warn(self) -> None:
        for extension in self.left_out():
            if not extension.reported:
                extension.reported = True
                logger.warning("depthprune: %s is left out: it %s; fix or uninstall it", extension, extension.problem)


def warn_once(error: ExtensionError) -> None:
    """Tell the user about a part that was not asked for and is left out; the same is said once in a process."""
    if str(error) not in _warned:
        _warned.add(str(error))
        logger.warning("depthprune: %s", error)


def _importing_module() -> str:
    """Return the name of the module that is being executed: the caller, or what calls it at module level."""
    frame = sys._getframe(1)
    while frame.f_code.co_name != "<module>" and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_globals.get("__name__", "")


def first_line(part: Callable) -> str:
    """Return the first line of a part's docstring, which is its description in lists."""
    return first_line_of(part.__doc__ or "")
