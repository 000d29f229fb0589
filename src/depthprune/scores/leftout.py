"""The cost of plans: the model run without the dropped layers, from the last hidden state shared with an earlier plan.

Candidates of a search differ in a few layers, so most of their computation is the same. A layer's input depends only on
the layers that ran before it; it is cached under their indices, and a plan starts after the longest cached prefix. The
winner of a round finds its states in the cache.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from depthprune.plan import LayerPlan
from depthprune.scores.batches import Batch, Batches
from depthprune.scores.objectives.base import Objective, Part
from depthprune.scores.predictions import check_finite, logits_of
from depthprune.scores.states import StateStore
from depthprune.surgery.partial import PartialModel

REFERENCE = (-1,)  # key of the full model's logits, if they cannot be computed from its last state


class LeftOut:
    """An objective for a search (`strategies.evaluator`): a cost, batch by batch.

    Args:
        runner: inside its context, after `learn`.
        batches: the sample.
        objective: the cost.
        store: for the hidden states; with no memory, every plan is run from the start.

    Attributes:
        num_batches: of the sample.
    """

    def __init__(self, runner: PartialModel, batches: Batches, objective: Objective, store: StateStore):
        self._runner, self._batches, self._objective, self._store = runner, batches, objective, store
        self._made: dict[int, Batch] = {}
        self._all = tuple(range(runner.depth))
        self.num_batches = len(batches)

    @property
    def layer_runs(self) -> int:
        """Number of layers that ran so far, over all plans."""
        return self._runner.layer_runs

    def batch(self, plan: LayerPlan, number: int) -> Part:
        """Return the sum of the cost of `plan` on a batch, and the number of predictions.

        Raises:
            UserError: if the sum is not finite.
        """
        with torch.inference_mode():
            full = self._full(number) if self._objective.against_full else None
            output = self._run(plan.kept, number)
            total, count = self._objective.cost(output, self._batch(number), self._batches.head, full)
        check_finite(total, number, plan.dropped)
        return total, count

    def output(self, plan: LayerPlan, number: int) -> tuple[Tensor, Tensor]:
        """Return the logits of a plan on a batch, and the targets."""
        with torch.inference_mode():
            logits = logits_of(self._run(plan.kept, number))
        targets = self._batch(number).targets
        assert targets is not None
        return logits, targets

    def finish(self, mean: float) -> float:
        """Return the objective's value for the mean over all predictions."""
        return self._objective.finish(mean)

    def keep(self, plans: Iterable[LayerPlan]) -> None:
        """Discard the states that none of these plans uses."""
        self._store.keep([plan.kept for plan in plans], also=(self._all, REFERENCE))

    def warm(self, plan: LayerPlan) -> None:
        """Cache every hidden state of `plan`, on disk if needed; the next candidates will start from these."""
        if self._runner.resumes:
            with torch.inference_mode():
                for number in range(self.num_batches):
                    self._run(plan.kept, number, spill=True)

    def _batch(self, number: int) -> Batch:
        if number not in self._made:
            self._made[number] = self._batches[number]
        return self._made[number]

    def _run(self, kept: tuple[int, ...], number: int, *, spill: bool = False) -> Any:
        """Run the layers `kept` on a batch; with `spill`, only to cache their states."""
        start, state, dropped = 0, None, frozenset(self._all) - set(kept)
        inputs = self._batch(number).inputs
        if not self._runner.resumes:
            return self._runner.run(inputs, dropped)
        stored = [n for n in range(1, len(kept) + 1) if (kept[:n], number) in self._store]
        if spill:  # every state is wanted, not only the last
            stored = [n for place, n in enumerate(stored, start=1) if place == n]
        if stored:
            start, state = kept[stored[-1] - 1] + 1, self._store.get((kept[: stored[-1]], number))
        if spill and start == kept[-1] + 1:
            return None

        def record(i: int, after: Tensor) -> None:
            if i - 1 not in dropped:
                self._store.put((kept[: kept.index(i - 1) + 1], number), after, spill=spill)

        return self._runner.run(
            inputs, dropped, start=start, state=state, record=record, stop=kept[-1] + 1 if spill else None
        )

    def _full(self, number: int) -> Any:
        """Return the full model's output on a batch: computed again from its last state, or cached."""
        if self._runner.resumes:
            return self._run(self._all, number)
        key = (REFERENCE, number)
        if key not in self._store:
            self._store.put(key, logits_of(self._run(self._all, number)), spill=True)
        return (self._store.get(key),) if key in self._store else self._run(self._all, number)
