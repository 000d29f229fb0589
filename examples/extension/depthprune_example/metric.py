"""A metric where lower is better: how many of a classifier's answers are wrong."""

from depthprune.tasks.metrics.base import metric


@metric("error_rate", kinds=("classification",), better="lower")
def error_rate(expected: list[int], predicted: list[int]) -> float:
    """Share of wrong answers."""
    return sum(a != b for a, b in zip(expected, predicted, strict=True)) / len(expected)
