"""The GLUE tasks, on rows in the Hub's layout made on the spot, and on the real files where they are."""

from pathlib import Path

import pytest

from depthprune.errors import LoadError
from depthprune.tasks import TaskOptions, load_task, registry
from depthprune.tasks.glue import GLUE

# Official rows of the development sets (https://arxiv.org/abs/1804.07461 and the Hub's nyu-mll/glue).
OFFICIAL = {"cola": 1043, "sst2": 872, "mrpc": 408, "stsb": 1500, "rte": 277, "wnli": 71, "qnli": 5463}
METRICS = {
    "cola": ["matthews"],
    "mnli": ["matched_accuracy", "mismatched_accuracy"],
    "mrpc": ["accuracy", "f1"],
    "qnli": ["accuracy"],
    "qqp": ["accuracy", "f1"],
    "rte": ["accuracy"],
    "sst2": ["accuracy"],
    "stsb": ["pearson", "spearman"],
    "wnli": ["accuracy"],
}


def write(folder: Path, name: str, splits: dict[str, list[dict]]) -> str:
    """Write a data set with a README that names its configuration, as the Hub's has."""
    import datasets

    (folder / name).mkdir(parents=True)
    lines = ["---", "configs:", f"- config_name: {name}", "  data_files:"]
    for split, rows in splits.items():
        file = f"{name}/{split}-00000-of-00001.parquet"
        datasets.Dataset.from_list(rows).to_parquet(folder / file)
        lines += [f"  - split: {split}", f"    path: {file}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return str(folder)


def pairs(*labels):
    return [{"sentence1": f"one {i}", "sentence2": f"two {i}", "label": label} for i, label in enumerate(labels)]


def test_every_glue_task_is_registered_with_its_official_metrics():
    assert set(METRICS) == set(GLUE) <= set(registry.names())
    for name, entry in GLUE.items():
        assert [prefix + metric for prefix in entry.eval_splits for metric in entry.metrics] == METRICS[name]
        assert entry.primary == METRICS[name][0]


def test_a_folder_in_the_layout_of_the_hub_is_read(tmp_path):
    dataset = write(tmp_path, "mrpc", {"train": pairs(0, 1, 1), "validation": pairs(1, 0)})

    data = load_task("mrpc", TaskOptions(dataset=dataset))

    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 3, "validation": 2}
    assert data.task.num_outputs == 2 and not data.task.regression


def test_the_fingerprint_follows_the_rows_and_not_the_place(tmp_path):
    splits = {"train": pairs(0, 1, 1), "validation": pairs(1, 0)}
    one = load_task("mrpc", TaskOptions(dataset=write(tmp_path / "a", "mrpc", splits)))
    same = load_task("mrpc", TaskOptions(dataset=write(tmp_path / "b", "mrpc", splits)))
    other = load_task("mrpc", TaskOptions(dataset=write(tmp_path / "c", "mrpc", {**splits, "train": pairs(0, 1, 0)})))

    assert one.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    "splits, message",
    [
        ({"train": pairs(0, 1)}, "no split 'validation' for 'mrpc'; it has 'train'"),
        ({split: [{"sentence1": "a", "label": 1}] for split in ("train", "validation")}, "no column 'sentence2'"),
        ({"train": pairs(0, 1), "validation": [{"sentence1": "a", "label": 1}]}, "has no text in 'sentence2'"),
        ({"train": pairs(0, 1), "validation": pairs(0, -1)}, "row 1 of 'validation' has the label -1"),
        ({"train": pairs(0, 2), "validation": pairs(0, 1)}, "row 1 of 'train' has the label 2"),
        ({"train": pairs(0, 1), "validation": pairs(None, 1)}, "row 0 of 'validation' has the label None"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(tmp_path, splits, message):
    with pytest.raises(LoadError, match=message):
        load_task("mrpc", TaskOptions(dataset=write(tmp_path, "mrpc", splits)))


def test_a_task_that_the_folder_does_not_have_is_refused(tmp_path):
    dataset = write(tmp_path, "mrpc", {"train": pairs(0, 1), "validation": pairs(1, 0)})

    with pytest.raises(LoadError, match=r"\(rte\) cannot be read"):
        load_task("rte", TaskOptions(dataset=dataset))


@pytest.mark.shared_data
@pytest.mark.parametrize("name", OFFICIAL)
def test_the_real_development_sets_are_whole(shared_data, name):
    data = load_task(name, TaskOptions(dataset=str(shared_data / "glue")))

    assert len(data.splits["validation"]) == OFFICIAL[name]


@pytest.mark.shared_data
def test_mnli_is_scored_on_matched_and_mismatched_rows(shared_data):
    data = load_task("mnli", TaskOptions(dataset=str(shared_data / "glue")))

    assert len(data.splits["validation_matched"]) == 9815
    assert len(data.splits["validation_mismatched"]) == 9832
