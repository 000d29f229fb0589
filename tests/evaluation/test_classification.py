"""Metrics against values worked out by hand, and a model's score against a loop that does not batch."""

import pytest
import torch

from depthprune.evaluation.base import measure, score
from depthprune.evaluation.classification import predict
from depthprune.tasks import Task, TaskData
from depthprune.tasks.data.encoding import encode
from tiny_models import ARCHITECTURES, tiny_model, tiny_tokenizer

PAIRS = Task("pairs", ("a", "b"), "label", ("no", "yes"), ("accuracy", "f1", "matthews"))
NUMBERS = Task("numbers", ("a", "b"), "label", (), ("pearson", "spearman"))
TEXTS = ["ba be", "ba be bi bo", "da", "fu fo fi fe fa", "ga ge", "ki ku ka"]


def rows(task: Task):
    from datasets import Dataset

    labels = [0.5, 1.0, 2.0, 3.0, 3.5, 4.0] if task.regression else [0, 1, 1, 0, 1, 0]
    found = Dataset.from_dict({"a": TEXTS, "b": TEXTS[::-1], "label": labels})
    return TaskData(task, {"train": found, "validation": found})


def test_the_metrics_of_a_known_confusion_matrix():
    # 2 true positives, 1 false positive, 1 false negative, 2 true negatives
    found = score(PAIRS, [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0])

    assert found == pytest.approx({"accuracy": 4 / 6, "f1": 2 / 3, "matthews": (2 * 2 - 1 * 1) / 9})


def test_correlations_of_a_line_and_of_a_constant():
    assert score(NUMBERS, [1, 2, 3], [2.0, 4.0, 6.0]) == pytest.approx({"pearson": 1.0, "spearman": 1.0})
    assert score(NUMBERS, [1, 2, 3], [2.0, 2.0, 2.0]) == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batches_sorted_by_length_predict_what_single_rows_do(name):
    row = ARCHITECTURES[name]
    model, tokenizer = tiny_model(name, "classification"), tiny_tokenizer(pads_left=row.pads_left)
    data = rows(PAIRS)
    encoded = encode(data, tokenizer, 32)["validation"]
    assert len(set(encoded["length"])) > 1, "rows of one length would not test the padding"

    expected, together = predict(model, tokenizer, PAIRS, encoded, batch_size=4)
    _, alone = predict(model, tokenizer, PAIRS, encoded, batch_size=1)

    assert together == alone
    assert expected == data.splits["validation"]["label"][:] and len(set(encoded["length"])) > 1


def test_every_metric_comes_with_its_number_of_examples():
    tokenizer = tiny_tokenizer()
    mnli_like = Task("m", ("a", "b"), "label", ("no", "yes"), ("accuracy",), {"matched_": "one", "mismatched_": "two"})
    found = rows(PAIRS).splits["train"]
    data = TaskData(mnli_like, {"train": found, "one": found, "two": found.select(range(4))})
    heard = {}

    metrics = measure(
        *(tiny_model("bert", "classification"), tokenizer, mnli_like, encode(data, tokenizer, 32)),
        on_rows=lambda prefix, expected, predicted: heard.update({prefix: (expected, predicted)}),
    )

    for prefix, (expected, predicted) in heard.items():
        right = sum(a == b for a, b in zip(expected, predicted, strict=True)) / len(expected)
        assert metrics[f"{prefix}accuracy"].value == pytest.approx(right)
    assert [expected for expected, _ in heard.values()] == [found["label"][:], found["label"][:4]]
    assert {name: m.examples for name, m in metrics.items()} == {"matched_accuracy": 6, "mismatched_accuracy": 4}


def test_scoring_leaves_the_mode_of_the_model():
    model, tokenizer = tiny_model("bert", "classification").train(), tiny_tokenizer()

    predict(model, tokenizer, PAIRS, encode(rows(PAIRS), tokenizer, 32)["validation"])

    assert model.training and torch.is_grad_enabled()
