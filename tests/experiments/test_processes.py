"""Two processes share a training, and one of them writes: the same as one alone, to rounding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset

from depthprune import processes
from depthprune.cli.main import app
from depthprune.errors import UserError
from depthprune.healing.base import Schedule, TrainingData
from depthprune.healing.training import train
from tiny_models import tiny_checkpoint, tiny_model, tiny_tokenizer, words

ROWS = 96  # 64 and 32 after nothing is held out: a multiple of the batch, so that no process pads


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    model = tiny_checkpoint(folder / "model", "bert", "base", 3)
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # each process has masks of its own
    (model / "config.json").write_text(json.dumps(config))
    lines = words(ROWS * 6, line=6).splitlines()[:ROWS]
    for split, part in (("train", lines[:64]), ("validation", lines[64:])):
        rows = "".join(f"{line},{i % 2}\n" for i, line in enumerate(part))
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / f"{split}.csv").write_text("text,label\n" + rows)
    return folder


def command(here, store, *more):
    return ["run", str(here / "model"),
            *("--task", "custom", "--dataset", str(here / "data"), "--text-columns", "text"),
            *("--label-column", "label", "--learning-rate", "1e-3", "--epochs", "2", "--batch-size", "16"),
            *("--precision", "float32", "--max-length", "16", "--store", str(store)),
            *("--device", "cpu"), *more]  # fmt: skip


def carry_out(here, store, *more):
    """Run the command in two processes."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "depthprune"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *launch, *command(here, store, *more)]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=env, timeout=300)


def records(store: Path):
    found = [json.loads(file.read_text()) for file in store.glob("*/record.json")]
    return {tuple(record["spec"]["drop"]["dropped"]): record for record in found}


@pytest.mark.parametrize(
    "more",
    [
        (),
        pytest.param(("--similar-lengths",), marks=pytest.mark.slow),
        pytest.param(("--heal", "distill(beta=1, tokens=all)"), marks=pytest.mark.slow),
    ],
)
def test_two_processes_learn_what_one_does_and_one_of_them_writes(here, tmp_path, more):
    choice = ("--strategy", "top", "--count", "1", *more)
    two = carry_out(here, tmp_path / "two", *choice)
    assert two.returncode == 0, two.stderr
    app(command(here, tmp_path / "one", *choice), standalone_mode=False)
    ours, theirs = records(tmp_path / "two"), records(tmp_path / "one")
    assert ours.keys() == theirs.keys() == {(), (2,)}
    for dropped, record in ours.items():
        alone = theirs[dropped]["outcome"]
        assert record["spec"] == theirs[dropped]["spec"]
        assert record["environment"]["processes"] == 2 and "processes" not in theirs[dropped]["environment"]
        assert record["outcome"]["heal"]["steps"] == alone["heal"]["steps"] == 8
        assert record["outcome"]["heal"]["loss"] == pytest.approx(alone["heal"]["loss"], rel=1e-4)
        assert record["outcome"]["metrics"] == alone["metrics"]
    assert two.stdout.count("checkpoint:") == 1, "one of them speaks"
    assert [f.name for f in (tmp_path / "two").glob("*/*.partial")] == []


@pytest.mark.slow
def test_layers_chosen_by_scores_dropped_one_by_one_and_then_what_is_stored(here, tmp_path):
    choice = ("--strategy", "contribution", "--count", "1", "--drop-every", "1")
    first = carry_out(here, tmp_path, *choice)
    assert first.returncode == 0, first.stderr
    (pruned,) = (record for dropped, record in records(tmp_path).items() if dropped)
    assert pruned["spec"]["drop"]["order"] == pruned["spec"]["drop"]["dropped"]
    assert pruned["outcome"]["heal"]["steps"] == 12
    again = carry_out(here, tmp_path, *choice)
    assert again.returncode == 0 and again.stdout.count("stored before") == 2


def test_a_batch_that_two_processes_cannot_share_is_refused_before_anything_is_trained(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    model, data = tiny_model("bert", "classification"), TrainingData(Dataset.from_dict({}), tiny_tokenizer())
    with pytest.raises(UserError, match="2 processes cannot share a batch of 15; give a multiple"):
        train(model, data, Schedule(batch_size=15))


@pytest.mark.slow
def test_a_command_whose_batch_cannot_be_shared_says_so_and_records_nothing(here, tmp_path):
    done = carry_out(here, tmp_path, "--strategy", "top", "--count", "1", "--batch-size", "15")
    assert done.returncode != 0 and "2 processes cannot share a batch of 15" in done.stderr
    assert not list(tmp_path.glob("*/record.json"))


def test_sharding_without_a_gpu_is_refused_and_not_done_without(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="FSDP needs GPUs"):
        processes.begin("cpu")


def test_what_torchrun_cannot_share_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UserError, match="start 'depthprune status' alone"):
        app(["status"], standalone_mode=False)


def test_a_process_alone_needs_nobody():
    assert processes.count() == 1 and processes.is_first()
    assert processes.agree({"a": 1}) == {"a": 1}
    processes.begin("cpu")
    processes.end()
