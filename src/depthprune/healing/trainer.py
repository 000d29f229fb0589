"""A `transformers.Trainer` with our order of rows, a loss of one's own, and an end where the loss is not finite."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback

from depthprune.errors import UserError
from depthprune.healing.base import OnStep
from depthprune.healing.execution.history import History
from depthprune.healing.execution.resuming import Saving
from depthprune.healing.sampler import SimilarLengthSampler

if TYPE_CHECKING:
    from torch import nn

# (model, batch) to a scalar, the mean over the batch. The model may be wrapped, for several processes: call it, and
# look at no attribute of it. The batch has every column of the rows but `length`, padded.
Loss = Callable[["nn.Module", dict[str, Tensor]], Tensor]


class DivergedError(UserError):
    """The loss of a training is not finite.

    Args:
        step: the one whose loss it is, counted from 1; the model is as the step before left it.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class HealingTrainer(Trainer):
    """Trains with the model's own loss unless it is given another; see `healing.training.train`.

    Args:
        loss: computes the loss of a batch; the model's own from the labels if None.
        lengths: tokens of every row, to put rows of similar length into one batch; None to mix them.
        examples_a_step: of all processes together.
        history: collects the losses.
        saving: saves the state of the training, from which it is resumed; None to save none.
        more: what `Trainer` takes.
    """

    def __init__(
        self,
        *,
        loss: Loss | None = None,
        lengths: Sequence[int] | None = None,
        examples_a_step: int = 1,
        history: History,
        saving: Saving | None = None,
        **more: Any,
    ):
        super().__init__(**more)
        self._loss, self._lengths, self._examples_a_step = loss, lengths, examples_a_step
        self._history = history
        history.belong_to(self)
        self.add_callback(history)
        self._saving = saving
        # Trainer has models scale their own loss for accumulation, which those of regressions do not.
        if loss is None and self.args.gradient_accumulation_steps > 1:
            self._loss = lambda model, batch: model(**batch).loss
        if self._loss is not None:
            self.loss_is_scaled_for_ga = False  # it is a mean over a batch

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **more: Any) -> Any:
        """Return the loss of a batch."""
        if self._loss is None:
            return super().compute_loss(model, inputs, *args, **more)
        with self.accelerator.autocast():  # Trainer does it for the model alone; a teacher takes the same precision
            return self._loss(model, inputs)

    def training_step(self, *args: Any, **more: Any) -> Tensor:
        """Do one step, and return its loss.

        Raises:
            DivergedError: the loss is not finite; the step has not changed the model.
        """
        loss = super().training_step(*args, **more)
        # Trainer would go on, and report the mean of the other losses in its place.
        if not torch.isfinite(loss):
            step = self.state.global_step + 1
            raise DivergedError(
                f"the loss is {loss.item():g} at step {step} of {self.state.max_steps}: the training diverged; lower "
                "--learning-rate, or give --precision float32",
                step,
            )
        self._history.add(loss)
        return loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self._lengths is None:
            return super()._get_train_sampler(train_dataset)
        generator = torch.Generator().manual_seed(self.args.seed)
        sampler = SimilarLengthSampler(self._lengths, self._examples_a_step, generator)
        sampler.skip(self._saving.epochs if self._saving is not None else 0)
        return sampler

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self._saving is None or not self._saving.has_room():
            return
        started = time.perf_counter()
        self.args.output_dir = str(self._saving.folder)
        super()._save_checkpoint(model, trial)
        self._saving.complete(self._saving.folder / f"checkpoint-{self.state.global_step}", started)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        assert self._saving is not None and output_dir is not None, "nothing else saves"
        self._saving.save_weights(Path(output_dir))

    def _load_from_checkpoint(self, *args: Any, **more: Any) -> None:
        """Leave the weights to `Saving`: the optimiser is still to be made, of layers that may have gone since."""


class Steps(TrainerCallback):
    """Tell a plain function how far the training is, and do what is to be done after a step."""

    def __init__(self, on_step: OnStep | None, events: Sequence[tuple[int, Callable[[], None]]]):
        self._on_step, self._events = on_step, events

    def on_step_end(self, args, state, control, **kwargs):
        for step, act in self._events:
            if step == state.global_step:
                act()
        if self._on_step is not None:
            self._on_step(state.global_step, state.max_steps)
