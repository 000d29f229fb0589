"""The exporters, and `export`, which runs one on a finished checkpoint, completely or not at all. No torch.

An exporter reads a checkpoint, writes to an empty folder that it is given, proves the result, and says how. Another
distribution adds one through the entry-point group `depthprune.exporter`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from depthprune.arguments import checked
from depthprune.errors import LoadError, UserError
from depthprune.output import check_outside, check_target, whole_folder
from depthprune.registry import Registry, first_line, unknown
from depthprune.sources import locate
from depthprune.specs.options import read_value


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Args:
        path: the folder.
        proof: how it was proved to equal the checkpoint, as a sentence without a full stop.
    """

    path: Path
    proof: str


@dataclass(frozen=True)
class NoOptions:
    """Options of an exporter that has none."""


Function = Callable[[Path, Path, Any], Exported]


@dataclass(frozen=True)
class Exporter:
    """A named format.

    Args:
        name: what the command calls it.
        function: called with the checkpoint, an empty folder and the options; returns the result.
        extra: the extra of depthprune that installs its dependencies, if it has any.
        options: a frozen dataclass whose fields are text, numbers or booleans with defaults.
    """

    name: str
    function: Function
    extra: str | None
    options: type

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return first_line(self.function)


registry: Registry[Exporter] = Registry("exporter", "depthprune.exporting", Exporter)


def exporter(name: str, *, extra: str | None = None, options: type = NoOptions) -> Callable[[Function], Function]:
    """Register an exporter; the function itself is returned unchanged."""
    assert is_dataclass(options), "the options of an exporter are a dataclass"

    def register(function: Function) -> Function:
        registry.add(name, Exporter(name, function, extra, options))
        return function

    return register


@checked("export")
def export(
    checkpoint: str | Path, target: str | Path, format: str, options: Mapping[str, Any] | None = None
) -> Exported:
    """Write a finished checkpoint in another format, and prove what was written.

    Args:
        checkpoint: a folder with config.json and safetensors weights.
        target: a folder that does not exist or is empty.
        format: the name of an exporter; `depthprune list` has them.
        options: of the exporter; values as text are converted.

    Raises:
        UserError: if there is no such exporter or option, or the checkpoint cannot be exported that way.
        LoadError: if the checkpoint is broken.
        OutputError: if the target exists already, or there is no space.
    """
    part = registry.get(format)
    chosen = _options(part, options or {})
    folder, target = Path(checkpoint).expanduser(), Path(target)
    check_target(target)
    if not folder.is_dir():
        raise UserError(f"there is no folder '{checkpoint}'; give the folder of a checkpoint")
    source = locate(folder, allow_pickle=True)  # refused here: an exporter reads safetensors only
    if source.weights[0].suffix != ".safetensors":
        raise LoadError(
            f"'{checkpoint}' has its weights in a pickle ({source.weights[0].name}), which can run code when it is "
            "read; save the model again with save_pretrained"
        )
    check_outside(target, folder)
    with whole_folder(target, num_bytes=sum(file.stat().st_size for file in source.weights)) as partial:
        exported = registry.check_returned(format, part.function(folder, partial, chosen), Exported)
    return replace(exported, path=target)


def _options(part: Exporter, given: Mapping[str, Any]) -> Any:
    """Return the options of an exporter from names and values.

    Raises:
        UserError: if a name is unknown, or a value has another type.
    """
    kinds: dict[str, Any] = get_type_hints(part.options)
    for name in given:
        if not kinds:
            raise UserError(f"the exporter '{part.name}' has no options, so nothing can be set to '{name}'")
        if name not in kinds:
            raise unknown(f"option of the exporter '{part.name}'", str(name), sorted(kinds))
    read = {name: read_value(kinds[name], f"the option '{name}'", value) for name, value in given.items()}
    return part.options(**read)
