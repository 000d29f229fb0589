"""A person's own data: formats, labels, splits, and what is said about them."""

import json
from pathlib import Path

import datasets
import pytest

from depthprune.errors import LoadError, UserError
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
    assert any("4 rows held out of 'train' (10%, of each class)" in note for note in one.notes)


def test_the_hold_out_has_a_seed_of_its_own_that_training_does_not_change(tmp_path):
    from depthprune.experiments.sweeps.grid import parse_sweep

    sweep = {"models": "m", "tasks": "custom", "strategies": "top", "counts": 1, "label_column": "label"}
    one, other = (parse_sweep({**sweep, "seeds": seeds}).options for seeds in ([1, 2], [3]))
    assert one == other and one.seed == TaskOptions().seed


def test_every_class_gives_its_share_to_the_hold_out(tmp_path):
    rows = [{"text": f"row {i}", "label": "often" if i % 10 else "rare"} for i in range(100)]
    rows.append({"text": "row 100", "label": "once"})

    data = load(write(tmp_path, "jsonl", rows))

    held = [data.task.labels[label] for label in data.splits["held-out"]["label"]]
    assert sorted(held) == ["often"] * 9 + ["rare"]
    assert "once" in {data.task.labels[label] for label in data.splits["train"]["label"]}
    texts = [*data.splits["train"]["text"], *data.splits["held-out"]["text"]]
    assert sorted(texts) == sorted(row["text"] for row in rows)


def test_the_hold_out_of_a_regression_is_the_one_it_was(tmp_path):
    data = load(write(tmp_path, "jsonl"), "size")
    rows = datasets.Dataset.from_list(ROWS).train_test_split(test_size=0.1, seed=42)["test"]
    assert data.splits["held-out"]["text"][:] == rows["text"][:]


@pytest.mark.parametrize("broken", [{"text": None}, {"label": None}, {"size": float("inf")}, {"size": float("nan")}])
def test_a_complaint_names_the_row_of_the_file(tmp_path, broken):
    for place in range(0, 40, 13):
        rows = [dict(row) for row in ROWS]
        rows[place] |= broken
        file = tmp_path / f"{place}.parquet"
        datasets.Dataset.from_list(rows).to_parquet(file)
        with pytest.raises(LoadError, match=rf"row {place} of 'train' .*rows count from 0"):
            load(str(file), "size" if "size" in broken else "label")


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


def test_scoring_takes_every_row_it_is_given_and_needs_no_split_to_train_on(tmp_path):
    file = write(tmp_path, "csv", ROWS[:9], "rows")
    only = tmp_path / "only"
    only.mkdir()
    write(only, "csv", ROWS[:5], "test")
    both = tmp_path / "both"
    both.mkdir()
    write(both, "csv", ROWS, "train")
    write(both, "csv", ROWS[:2], "test")

    assert len(load(file, scoring_only=True).splits["train"]) == 9
    assert {split: len(rows) for split, rows in load(str(only), scoring_only=True).splits.items()} == {"test": 5}
    assert {split: len(rows) for split, rows in load(str(both), scoring_only=True).splits.items()} == {"test": 2}
    trained_on = load(str(both), scoring_only=True, eval_split="train")
    assert len(trained_on.splits["train"]) == 40 and trained_on.task.eval_splits == {"": "train"}
    one_class = load(write(tmp_path, "csv", ROWS[:1], "one"), scoring_only=True)
    assert one_class.task.labels == ("cat",)
    with pytest.raises(LoadError, match="has no split 'train'"):
        load(str(only))


def test_what_the_label_is_can_be_said(tmp_path):
    rows = [{"text": f"row {i}", "half": float(i % 2), "age": 20 + i // 2, "word": "x"} for i in range(80)]
    file = write(tmp_path, "jsonl", rows)

    looks, said = load(file, "half"), load(file, "half", kind="classification")
    assert looks.task.regression and any("give --classification" in note for note in looks.notes)
    assert said.task.labels == ("0", "1") and set(said.splits["train"]["half"][:]) == {0, 1}
    looks, said = load(file, "age"), load(file, "age", kind="regression")
    assert len(looks.task.labels) == 40 and any("give --regression" in note for note in looks.notes)
    assert said.task.regression and set(said.splits["train"]["age"][:]) <= {float(row["age"]) for row in rows}
    with pytest.raises(LoadError, match=r"row 0 of 'train' has the label 'x' in 'word', not a finite number"):
        load(file, "word", kind="regression")


def test_the_primary_metric_can_be_chosen_and_names_another_run(tmp_path):
    file = write(tmp_path, "jsonl")

    own, same, other = (load(file, metric=metric) for metric in (None, "accuracy", "matthews"))

    assert own.task == same.task and own.task.primary == "accuracy"
    assert other.task.primary == "matthews" and other.task.metrics == ("matthews", "accuracy", "f1_macro")
    assert other.task.chosen_metric == "matthews" and other.fingerprint == own.fingerprint
    with pytest.raises(UserError, match="'f1' is not a metric of 'custom', a task with 3 classes; it can have acc"):
        load(file, metric="f1")
    with pytest.raises(UserError, match=r"'accuracy' is not a metric of 'custom', a regression; .* pearson, spearman"):
        load(file, "size", metric="accuracy")


def test_a_column_cannot_be_text_and_label(tmp_path):
    file = write(tmp_path, "csv")
    with pytest.raises(LoadError, match="'text' cannot be both text and label"):
        load(file, "text")
    with pytest.raises(LoadError, match="give two different ones"):
        load_task("custom", TaskOptions(file, ("text", "text"), "label"))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("empty.csv", "", "' is empty; give a file with rows"),
        ("head.csv", "text,label\n", "' has no rows"),
        ("blank.jsonl", "\n", "' has no rows"),
        ("ragged.csv", "text,label\na,1\nb,2,3,4\n", "cannot be read: Error tokenizing data"),
        ("broken.jsonl", '{"text": "a", "label": 1}\n{"text": \n', "cannot be read: JSON parse error"),
        ("broken.parquet", "PAR1 nothing", "cannot be read: Parquet magic bytes"),
    ],
)
def test_a_broken_file_is_named_by_its_path_and_only_we_speak(tmp_path, capfd, caplog, name, content, message):
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(LoadError, match=message) as found:
        load(str(file))
    assert str(file) in str(found.value) and "\n" not in str(found.value)
    lines = capfd.readouterr().err.replace("\r", "\n").splitlines()
    assert [line for line in lines if line and not line.startswith("Generating")] == [] == caplog.messages
