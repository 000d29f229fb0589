"""Run a part of a model by itself, where the whole does not show what its layers do.

The vision tower of a multimodal model takes images even where no call was found that brings one to it through the text.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from .compare import Flat, flatten
from .inputs import Call, calls_that_run, run


@dataclass(frozen=True)
class Part:
    """A module inside a model and calls that it takes."""

    path: str
    calls: tuple[Call, ...]

    def outputs(self, model: nn.Module) -> Flat:
        """Return every tensor that this part of `model` makes of its calls."""
        module: Any = model.get_submodule(self.path)
        return {f"{n}.{k}": v for n, call in enumerate(self.calls) for k, v in flatten(run(module, call)).items()}


class Parts:
    """The parts of a model that can be run, each looked for once."""

    def __init__(self, model: PreTrainedModel):
        self._model = model
        self._found: dict[str, Part] = {}

    def around(self, paths: tuple[str, ...]) -> Iterator[Part]:
        """Yield the parts that hold all of `paths`, the largest first."""
        names = paths[0].split(".")
        for length in range(1, len(names)):
            path = ".".join(names[:length])
            module: Any = self._model.get_submodule(path)
            if not hasattr(module, "config") or not all(p.startswith(f"{path}.") for p in paths):
                continue
            if path not in self._found:
                self._found[path] = Part(path, tuple(_calls(module)))
            if self._found[path].calls:
                yield self._found[path]


def _calls(module: Any) -> list[Call]:
    try:
        return calls_that_run(module)[0]
    except Exception:  # what is no model of its own has no entries to make inputs by
        return []
