"""Metrics of class numbers, by scikit-learn."""

from collections.abc import Sequence
from typing import Any

from depthprune.optional import require
from depthprune.tasks.metrics.base import CLASSIFICATION, metric

KINDS = (CLASSIFICATION,)


def _sklearn(name: str, expected: Sequence, predicted: Sequence, **options: Any) -> float:
    module = require("sklearn.metrics", extra="metrics", purpose="scoring a task")
    return float(getattr(module, name)(expected, predicted, **options))


@metric("accuracy", kinds=KINDS)
def accuracy(expected: Sequence, predicted: Sequence) -> float:
    """Share of right answers."""
    return _sklearn("accuracy_score", expected, predicted)


@metric("balanced_accuracy", kinds=KINDS)
def balanced_accuracy(expected: Sequence, predicted: Sequence) -> float:
    """Mean over the classes of the share of their rows that are found."""
    return _sklearn("balanced_accuracy_score", expected, predicted)


@metric("f1", kinds=KINDS, binary=True)
def f1(expected: Sequence, predicted: Sequence) -> float:
    """F1 of class 1 of two."""
    return _sklearn("f1_score", expected, predicted)


@metric("f1_macro", kinds=KINDS)
def f1_macro(expected: Sequence, predicted: Sequence) -> float:
    """Mean of every class's F1."""
    return _sklearn("f1_score", expected, predicted, average="macro")


@metric("matthews", kinds=KINDS)
def matthews(expected: Sequence, predicted: Sequence) -> float:
    """Matthews correlation of the classes."""
    return _sklearn("matthews_corrcoef", expected, predicted)
