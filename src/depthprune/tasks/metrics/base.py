"""What a metric is: a function of answers that says in which unit it is and which way is better. No torch.

A metric is a function in a file of its own in `tasks/metrics/`. Another distribution adds one through the entry-point
group `depthprune.metric`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from depthprune.registry import Registry, first_line

CLASSIFICATION, REGRESSION, LANGUAGE_MODEL = "classification", "regression", "language-model"
HIGHER, LOWER = "higher", "lower"
FRACTION = "fraction"  # shown × 100; differences of it are points

Better = Literal["higher", "lower"]
Function = Callable[[Sequence[Any], Sequence[Any]], float]


@dataclass(frozen=True)
class Metric:
    """A named metric.

    Args:
        name: what a task, a record and `--metric` call it.
        function: from the expected and the predicted answers of all rows to a finite number. For a classification
            these are the numbers of classes, for a regression numbers, for a language model the tokens that are
            predicted in each block of text and their summed negative log-likelihood in nats.
        kinds: of evaluation that give such answers.
        unit: `fraction`, or what stands behind the number (`bits`, …); empty for a pure number.
        better: `higher` or `lower`.
        binary: whether it is defined for two classes alone.
        standard_error: a function of the same answers, where there is a formula; the reports resample the rows.
    """

    name: str
    function: Function
    kinds: tuple[str, ...]
    unit: str = FRACTION
    better: Better = HIGHER
    binary: bool = False
    standard_error: Function | None = None

    @property
    def summary(self) -> str:
        """The first line of the function's docstring, and what can have the metric."""
        lower = "; lower is better" if self.better == LOWER else ""
        return f"{first_line(self.function)} ({', '.join(self.kinds)}{lower})"


registry: Registry[Metric] = Registry("metric", "depthprune.tasks.metrics", Metric)


def metric(
    name: str,
    *,
    kinds: tuple[str, ...],
    unit: str = FRACTION,
    better: Better = HIGHER,
    binary: bool = False,
    standard_error: Function | None = None,
) -> Callable[[Function], Function]:
    """Register a metric of the answers to a task; the function itself is returned unchanged."""

    def register(function: Function) -> Function:
        registry.add(name, Metric(name, function, kinds, unit, better, binary, standard_error))
        return function

    return register


def possible_metrics(kind: str, num_classes: int = 0) -> tuple[str, ...]:
    """Return the metrics that a task can have, in alphabetical order.

    >>> possible_metrics("regression")
    ('pearson', 'spearman')

    Args:
        kind: of evaluation.
        num_classes: of a classification.
    """
    found = (part for _, part in registry.items() if kind in part.kinds)
    return tuple(part.name for part in found if not part.binary or num_classes <= 2)
