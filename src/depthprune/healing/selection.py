"""The best epoch's weights, by the task's metric on training rows that are held out; and an end when nothing improves.

The rows that a run is scored on choose nothing: a maximum over several looks at them would be reported as a score.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback

from depthprune import processes
from depthprune.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def split_rows(rows: Dataset, fraction: float, seed: int, num_unlabelled: int = 0) -> tuple[Dataset, Dataset]:
    """Return the rows to train on and those that are held out, both in their order.

    Args:
        fraction: of the labelled rows, that is held out.
        num_unlabelled: how many of the rows, the last ones, have no label; all of these are trained on.

    Raises:
        UserError: there are too few rows for both.
    """
    labelled = len(rows) - num_unlabelled
    held = round(labelled * fraction)
    if not 0 < held < labelled:
        raise UserError(
            f"a validation_fraction of {fraction:g} of {labelled} training rows holds out {held}; give another one"
        )
    order = torch.randperm(labelled, generator=torch.Generator().manual_seed(seed)).tolist()
    return rows.select([*sorted(order[held:]), *range(labelled, len(rows))]), rows.select(sorted(order[:held]))


class BestEpoch(TrainerCallback):
    """Keeps the weights of the epoch that measures best; the last one counts, too, where it is not whole.

    Args:
        model: that is trained.
        measure: returns what the model scores; higher is better.
        patience: end the training after so many epochs without a better one; never if 0.
        first_step: epochs that end before this step do not count, such as those with layers that go later.
        on_score: called with the step and what the model scored.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        measure: Callable[["PreTrainedModel"], float],
        patience: int,
        first_step: int,
        on_score: Callable[[int, float], None],
    ):
        self._model, self._measure, self._patience, self._first = model, measure, patience, first_step
        self._on_score = on_score
        self._weights: dict[str, Tensor] = {}
        self._without = 0
        self._measured_at = -1
        self.score: float | None = None
        self.step: int | None = None

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the model, and keep its weights if it is the best so far."""
        self._look(state.global_step, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the model once more where the training did not end with an epoch."""
        self._look(state.global_step, control)

    def _look(self, step: int, control: Any) -> None:
        if step < self._first or step == self._measured_at:
            return
        self._measured_at = step
        found = processes.agree(self._measure(self._model))
        self._on_score(step, found)
        if self.score is None or found > self.score:
            self.score, self.step, self._without = found, step, 0
            self._weights = {name: tensor.detach().clone() for name, tensor in self._model.state_dict().items()}
            return
        self._without += 1
        if self._patience and self._without >= self._patience:
            control.should_training_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return what was found so far; see `healing.execution.resuming`."""
        found = {"score": self.score, "step": self.step, "without": self._without, "measured_at": self._measured_at}
        return {**found, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self.score, self.step, self._weights = state["score"], state["step"], state["weights"]
        self._without, self._measured_at = state["without"], state["measured_at"]

    def restore(self) -> None:
        """Give the model the best weights back."""
        if self._weights:
            self._model.load_state_dict(self._weights)
