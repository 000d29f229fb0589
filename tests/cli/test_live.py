"""A sweep as it goes, without a terminal: how far the runs are is said now and then, and asked for by `status`."""

import time

import pytest

from depthprune.cli.live import Live
from depthprune.experiments.store.leases import Watch, leased
from depthprune.experiments.store.store import Store
from depthprune.experiments.sweeps.expansion import Expansion, Job
from depthprune.specs import DropSpec, EvalSpec, RunSpec
from depthprune.tasks import TaskOptions


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def expansion() -> Expansion:
    spec = RunSpec("sha256:" + "a" * 64, EvalSpec("mrpc", "sha256:rows"), DropSpec((4, 5)))
    return Expansion({spec.digest(): Job(spec, "model", 6, TaskOptions())})


def test_how_far_a_run_is_that_another_process_does_is_said_now_and_then(store, expansion, capsys):
    (digest,) = expansion.jobs
    with (
        leased(store.folder(digest), Watch(), heartbeat=0.02, progress={"stage": "train", "done": 30, "total": 120}),
        Live(expansion, store, every=0.1),
    ):
        time.sleep(0.5)
    captured = capsys.readouterr()
    assert captured.out == "", "results alone go to standard output"
    assert 2 <= captured.err.count(f"{digest} (dropped 4-5): train 30/120\n") <= 5


def test_status_says_how_far_each_run_is(store, expansion, command):
    (digest,) = expansion.jobs
    progress = {"stage": "train", "done": 30, "total": 120}
    with leased(store.folder(digest), Watch(), heartbeat=0.02, progress=progress):
        time.sleep(0.2)
        answer = command("status", "--store", store.root)
    assert answer.status == 0
    assert f"running: {digest}: train 30/120 (process " in answer.out
