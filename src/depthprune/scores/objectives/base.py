"""What an objective is: a cost that is summed over what is predicted, a batch at a time. Lower is better. No torch.

An objective is a function in a file of its own in `scores/objectives/`. Another distribution adds one through the
entry-point group `depthprune.objective`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from depthprune.errors import UserError
from depthprune.registry import Registry, first_line

Part = tuple[float, int]  # a sum, and over how many predictions
LANGUAGE = ("causal", "masked", "seq2seq")
CLASSES = "classes"
HEADS = {
    "causal": "a causal language head",
    "masked": "a masked-language head",
    "classes": "a classifier",
    "seq2seq": "a sequence-to-sequence head",
    None: "no head",
}
Cost = Callable[[Any, Any, str | None, Any], Part]


@dataclass(frozen=True)
class Objective:
    """A named cost.

    Args:
        name: what the command calls it.
        function: `(output, batch, head, full_output)` to the sum over a batch and the number of predictions in it.
            `output` is what the model returned for `batch.inputs` without the dropped layers, `full_output` what the
            full model returned, None unless `against_full`.
        heads: kinds of heads (`batches.head_of`) that have it; None stands for a model without a head.
        labels: whether it needs the labels of a task.
        against_full: whether it compares with the output of the full model.
        finish: makes the value of the mean.
        unit: of the value.
    """

    name: str
    function: Cost
    heads: tuple[str | None, ...]
    labels: bool = False
    against_full: bool = False
    finish: Callable[[float], float] = float
    unit: str = ""

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return first_line(self.function)

    def check(self, head: str | None, labelled: bool, model: str) -> None:
        """Refuse a model, or data, that cannot have this cost.

        Raises:
            UserError: if the model has another head, or the data has no labels.
        """
        if head not in self.heads:
            wanted = " or ".join(HEADS[each] for each in self.heads)
            raise UserError(f"{model} has {HEADS[head]}, and '{self.name}' needs a model with {wanted}")
        if head == CLASSES and self.labels and not labelled:
            raise UserError(f"'{self.name}' of a classifier needs labels: give a task, such as --data mrpc")

    def cost(self, output: Any, batch: Any, head: str | None, full_output: Any) -> Part:
        """Return the sum of the cost over a batch, and the number of predictions in it.

        Raises:
            ExtensionError: if the function returned something else.
        """
        total, count = registry.check_returned(self.name, self.function(output, batch, head, full_output), tuple)
        return total, count


registry: Registry[Objective] = Registry("objective", "depthprune.scores.objectives", Objective)


def objective(
    name: str,
    *,
    heads: tuple[str | None, ...],
    labels: bool = False,
    against_full: bool = False,
    finish: Callable[[float], float] = float,
    unit: str = "",
) -> Callable[[Cost], Cost]:
    """Register an objective; the function itself is returned unchanged."""

    def register(function: Cost) -> Cost:
        registry.add(name, Objective(name, function, heads, labels, against_full, finish, unit))
        return function

    return register


def default_objective(head: str | None, labelled: bool) -> str:
    """Return the objective that fits a model best where none was asked for."""
    if head is None:
        return "embedding"
    return "loss" if head != CLASSES or labelled else "kl"
