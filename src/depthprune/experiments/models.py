"""The models of a run: the one that is cut, and the full one as a teacher."""

import copy
from typing import Any

from depthprune.errors import UserError
from depthprune.loading import load_classifier
from depthprune.sources import ModelSource

KEPT_BYTES = 1 << 30  # a larger model is loaded anew for each run
_loaded: dict[tuple[str, int, int], tuple[Any, list[str]]] = {}  # at most one, for the runs of a sweep's worker


def load_model(source: ModelSource, identity: str, num_outputs: int, seed: int, device: str) -> tuple[Any, list[str]]:
    """Load the model with a head that depends on the seed alone; the last one loaded is kept for the next run."""
    from depthprune.profiling.footprint import weight_bytes

    key = (identity, num_outputs, seed)
    if key not in _loaded:
        _loaded.clear()
        model, fresh = load_classifier(source, num_outputs)
        if weight_bytes(model) > KEPT_BYTES:
            return model.to(device), fresh
        _loaded[key] = (model, fresh)
    model, fresh = _loaded[key]
    return copy.deepcopy(model).to(device), fresh


class FullModel:
    """A teacher that is a checkpoint, loaded when a method first asks for it; see `healing.base.Teacher`.

    Args:
        source: the checkpoint, fine-tuned on the task.
        num_outputs: of its head.
        device: where the student is.
    """

    def __init__(self, source: ModelSource, num_outputs: int, device: str):
        self._source, self._num_outputs, self._device = source, num_outputs, device
        self._model: Any = None

    @property
    def identity(self) -> str:
        """The model by content, as in a run's spec."""
        return self._source.identity

    def model(self) -> Any:
        """Return the whole model, in evaluation mode and without gradients, where the student is.

        Raises:
            UserError: its head is not trained.
        """
        if self._model is None:
            model, fresh = load_classifier(self._source, self._num_outputs)
            if fresh:
                raise UserError(
                    f"the teacher '{self._source.name}' has no trained '{fresh[0]}' for {self._num_outputs} outputs; "
                    "give one that is fine-tuned on the task"
                )
            self._model = model.to(self._device).eval().requires_grad_(False)
        return self._model
