"""A person's own data: formats, labels, splits, and what is said about them."""

import json
from pathlib import Path

import datasets
import pytest

from depthprune.errors import LoadError
from depthprune.tasks import TaskOptions, load_task

ROWS = [{"text": f"row {i}", "label": ["cat", "dog", "cow"][i % 3], "size": i + 0.5, "stars": i % 5} for i in range(40)]


def write(folder: Path, kind: str, rows=ROWS, name: str = "train") -> str:
    file = folder / f"{name}.{kind}"
    data = datasets.Dataset.from_list(rows)
    if kind == "csv":
        data.to_csv(file)
    elif kind == "parquet":
        data.to_parquet(file)
    else:
        file.write_text("\n".join(json.dumps(row) for row in rows))
    return str(file)


def load(dataset: str, label: str = "label", **more):
    return load_task("custom", TaskOptions(dataset, ("text",), label, **more))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path, kind):
    data = load(write(tmp_path, kind))

    assert data.task.labels == ("cat", "cow", "dog")
    assert len(data.splits["train"]) == 36 and len(data.splits["held-out"]) == 4
    first = data.splits["train"][0]
    number = int(first["text"].split()[1])
    assert data.task.labels[first["label"]] == ROWS[number]["label"]


def test_the_label_column_decides_between_classes_and_numbers_and_it_is_said(tmp_path):
    file = write(tmp_path, "jsonl")

    words, fractions, whole = load(file), load(file, "size"), load(file, "stars")

    assert not words.task.regression and any("3 classes (cat, cow, dog)" in note for note in words.notes)
    assert fractions.task.regression and fractions.task.primary == "pearson"
    assert any("regression: 'size' holds numbers with a fraction" in note for note in fractions.notes)
    assert whole.task.labels == ("0", "1", "2", "3", "4") and whole.task.metrics == ("accuracy", "f1_macro")


def test_the_hold_out_is_seeded_and_disjoint(tmp_path):
    file = write(tmp_path, "csv")

    one, same, other = (load(file, seed=seed) for seed in (1, 1, 2))

    texts = [set(data.splits["held-out"]["text"]) for data in (one, same, other)]
    assert texts[0] == texts[1] != texts[2]
    assert not texts[0] & set(one.splits["train"]["text"])
    assert any("4 rows held out of 'train' (10%, seed 1)" in note for note in one.notes)


def test_validation_comes_before_test_and_a_named_split_before_both(tmp_path):
    for name, count in (("train", 30), ("validation", 3), ("test", 6)):
        write(tmp_path, "csv", ROWS[:count], name)

    assert len(load(str(tmp_path)).splits["validation"]) == 3
    assert len(load(str(tmp_path), eval_split="test").splits["test"]) == 6
    with pytest.raises(LoadError, match="trained on"):
        load(str(tmp_path), eval_split="train")


def test_a_label_that_training_never_shows_is_refused(tmp_path):
    write(tmp_path, "csv", ROWS, "train")
    write(tmp_path, "csv", [*ROWS[:2], {**ROWS[2], "label": "horse"}], "test")

    with pytest.raises(LoadError, match="'test' has the label 'horse', which no row of 'train' has"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"text": "a", "label": "x"}] * 20, "every row of 'train' has the label 'x'"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": None}] * 9, "row 1 of 'train' has no label"),
        ([{"text": "a", "label": "x"}], "too few to hold some out"),
        ([{"text": "a", "label": [1]}, {"text": "b", "label": [2]}] * 9, "neither numbers nor words"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(tmp_path, rows, message):
    with pytest.raises(LoadError, match=message):
        load(write(tmp_path, "jsonl", rows))
