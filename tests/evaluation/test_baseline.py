"""What a score stands beside: the share of the classes, and the score of the largest."""

import pytest
from datasets import Dataset

from depthprune.evaluation.baseline import balance_note, majority_baseline
from depthprune.tasks import Task, TaskData


def data(train, scored, labels=("no", "yes"), metrics=("accuracy", "f1")) -> TaskData:
    splits = {"train": train, "validation": scored}
    task = Task("t", ("text",), "label", labels, metrics)
    return TaskData(task, {k: Dataset.from_dict({"text": ["a"] * len(v), "label": v}) for k, v in splits.items() if v})


def test_the_largest_class_is_that_of_the_training_rows():
    some = data([1, 1, 0], [0, 0, 0, 1])
    found = majority_baseline(some)
    assert found == pytest.approx({"accuracy": 0.25, "f1": 0.4})
    said = "classes of the 4 scored rows: 75 % 'no', 25 % 'yes'; always 'yes' scores accuracy 25.00"
    assert balance_note(some, found) == [said]


def test_without_training_rows_it_is_that_of_the_rows_that_are_scored():
    assert majority_baseline(data([], [0, 0, 0, 1]))["accuracy"] == 0.75


def test_a_regression_has_no_largest_class():
    some = data([0.5], [1.5], labels=(), metrics=("pearson",))
    assert majority_baseline(some) == {} and balance_note(some, {}) == []
