"""The weights of a model are hashed once for a command, however many of its parts ask what the model is."""

import hashlib
import os

import pytest

from depthprune.experiments.comparison import compare
from depthprune.experiments.store.store import Store
from depthprune.experiments.sweeps.choices import stored_scorer
from depthprune.experiments.sweeps.expansion import expand
from depthprune.experiments.sweeps.grid import parse_sweep
from depthprune.experiments.sweeps.runner import Work, do
from depthprune.specs import HealSpec
from depthprune.tasks import TaskOptions
from tiny_models import tiny_checkpoint, words


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    lines = words(64, line=5).splitlines()
    file.write_text("text,label\n" + "".join(f"{line},{'no' if i % 2 else 'yes'}\n" for i, line in enumerate(lines)))
    return file


@pytest.fixture
def model(tmp_path):
    return tiny_checkpoint(tmp_path / "model", "bert", "base", 3)


@pytest.fixture
def hashed(model, monkeypatch):
    """One entry for each time that the weights of `model` went through SHA-256."""
    weights, times, sha256 = (model / "model.safetensors").read_bytes(), [], hashlib.sha256
    assert len(weights) < 1 << 20, "they are read in one piece"

    class Counting:
        def __init__(self, *given, **more):
            self._hash = sha256(*given, **more)

        def update(self, data):
            times.extend([1] if bytes(data) == weights else [])
            self._hash.update(data)

        def __getattr__(self, name):
            return getattr(self._hash, name)

    monkeypatch.setattr(hashlib, "sha256", Counting)
    return times


@pytest.mark.parametrize("strategy", ["contribution", "greedy"])
def test_a_run_whose_layers_are_chosen_on_data_hashes_the_weights_once(strategy, model, rows, hashed, tmp_path):
    options = TaskOptions(str(rows), ("text",), "label")
    how = {"options": options, "max_length": 16, "store": tmp_path / "runs", "save": False, "profile": False}
    compare(str(model), "custom", strategy=strategy, count=1, heal=HealSpec(num_epochs=0), **how)
    assert len(hashed) == 1


def test_a_sweeps_workers_hash_the_weights_only_where_the_files_are_not_those_that_were_planned(
    model, rows, hashed, tmp_path
):
    grid = {"models": str(model), "tasks": "custom", "strategies": ["top", "angular"], "counts": [1, 2],
            "dataset": str(rows), "text_columns": "text", "label_column": "label",
            "heal": [{"name": "none", "num_epochs": 0}], "max_length": 16}  # fmt: skip
    scores_of = stored_scorer(tmp_path / "runs", "cpu", take=True)
    jobs = [*expand(parse_sweep(grid), scores_of).jobs.values()]
    assert len(jobs) > 1 and len(hashed) == 1
    work = [Work(job, str(Store(tmp_path / "runs").root), "cpu", profile=False) for job in jobs]
    assert do(work[0])[1] == "done"
    assert len(hashed) == 1
    os.utime(model / "config.json", ns=(0, 0))
    assert do(work[1])[1] == "done"
    assert len(hashed) == 2
