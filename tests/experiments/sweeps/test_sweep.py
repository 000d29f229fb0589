"""Sweeps: unique runs, shared, leased, killed and gone on with."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter

import pytest

from depthprune.errors import UserError
from depthprune.experiments.store.leases import LEASE_FILE, Watch, leased
from depthprune.experiments.store.store import Store, readable_record
from depthprune.experiments.sweeps.choices import stored_scorer
from depthprune.experiments.sweeps.executors.base import Resources
from depthprune.experiments.sweeps.executors.base import registry as executors
from depthprune.experiments.sweeps.expansion import combined, expand
from depthprune.experiments.sweeps.grid import parse_sweep
from depthprune.experiments.sweeps.rows import estimate, remember, stored_rows
from depthprune.experiments.sweeps.runner import Work, do, run_jobs
from depthprune.experiments.sweeps.status import best_plans, tally
from tiny_models import tiny_checkpoint, words


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    tiny_checkpoint(folder / "model", "bert", "base", 4)
    lines = words(600, line=6).splitlines()
    rows = "".join(f"{line},{i % 2}\n" for i, line in enumerate(lines))
    (folder / "rows.csv").write_text("text,label\n" + rows)
    return folder


def grid(here, **more):
    content = {
        "models": str(here / "model"),
        "tasks": "custom",
        "dataset": str(here / "rows.csv"),
        "text_columns": "text",
        "label_column": "label",
        "strategies": ["top", "bottom", "symmetric", "even-alternate", "odd-alternate", "contribution"],
        "counts": ["1..L-1"],
        "heal": {"num_epochs": 0.2},
        "max_length": 16,
    }
    return parse_sweep({**content, **more})


def scorer(store, take=True):
    return stored_scorer(store, "cpu", take=take)


def test_strategies_that_choose_the_same_layers_share_a_run_and_the_full_model_runs_once(here, tmp_path):
    expansion = expand(grid(here, seeds=[1, 2]), scorer(tmp_path))
    plans = {job.spec.drop.dropped for job in expansion.jobs.values()}
    assert len(expansion.jobs) == 2 * len(plans), "one run a plan and seed"
    assert sum(not job.spec.drop.dropped for job in expansion.jobs.values()) == 2
    assert not next(iter(expansion.jobs.values())).spec.drop.dropped, "the full models go first"
    top, even = ([row.digest for row in expansion.rows if row.strategy == name and row.count == 1]
                 for name in ("top", "even-alternate"))  # fmt: skip
    assert top == even and expansion.shared > 0
    # 4 layers: symmetric at 1 and 3, and the alternates at 3, are impossible; the others go on.
    assert len(expansion.skipped) == 4 and all("count" in note for note in expansion.skipped)


def test_sweeps_are_carried_out_as_one_in_the_order_given_and_a_run_of_both_once(here, tmp_path):
    cuts = {"strategies": ["top"], "counts": [1]}
    first, second = (expand(grid(here, seeds=seeds, **cuts), scorer(tmp_path)) for seeds in ([2], [1, 2]))
    whole = combined([first, second])
    assert [job.spec.seed for job in whole.jobs.values()] == [2, 2, 1, 1]
    assert set(whole.jobs) == set(second.jobs) and len(whole.rows) == len(second.rows) == 4


def test_a_sweep_may_be_of_baselines_alone(here, tmp_path):
    entries = {"baselines": [str(here / "model")], "tasks": "custom", "dataset": str(here / "rows.csv")}
    entries |= {"text_columns": "text", "label_column": "label"}
    expansion = expand(parse_sweep(entries), scorer(tmp_path))
    assert [(row.strategy, row.count) for row in expansion.rows] == [("baseline", 0)]
    with pytest.raises(UserError, match="a sweep needs 'strategies'"):
        parse_sweep(entries | {"models": entries["baselines"]})


def test_a_dry_run_takes_no_scores(here, tmp_path):
    dry = expand(grid(here, strategies=["top", "contribution"]), scorer(tmp_path, take=False))
    assert dry.unscored == 3 and not list(tmp_path.iterdir())
    real = expand(grid(here, strategies=["top", "contribution"]), scorer(tmp_path))
    assert real.unscored == 0 and len(real.rows) == len(dry.rows) + 3


def test_every_run_is_done_once_and_the_second_time_nothing_is_run(here, tmp_path):
    store = Store(tmp_path)
    expansion = expand(grid(here, strategies=["top", "bottom"], counts=[1]), scorer(tmp_path))
    states = list(run_jobs(expansion, store, executor="local", resources=Resources(workers=2), profile=False))
    assert Counter(state for _, state, _ in states) == {"done": 3}
    records = {d: readable_record(store.folder(d) / "record.json") for d in expansion.jobs}
    assert all(records.values())
    times = {d: (store.folder(d) / "record.json").stat().st_mtime_ns for d in expansion.jobs}
    assert len(list(run_jobs(expansion, store))) == 3
    assert {d: (store.folder(d) / "record.json").stat().st_mtime_ns for d in expansion.jobs} == times
    remember(expansion, store)
    remember(expansion, store)
    assert len(stored_rows(store)) == len(expansion.rows) == 3
    assert len(tally(store).done) == 3
    (best,) = best_plans(list(records.values()))
    assert best.retention is not None


def test_a_failed_run_is_kept_with_its_reason_and_tried_again_only_when_asked(here, tmp_path, one_by_one):
    store, rows = Store(tmp_path / "runs"), tmp_path / "rows.csv"
    shutil.copy(here / "rows.csv", rows)
    expansion = expand(grid(here, dataset=str(rows), strategies=["top"], counts=[1]), scorer(store.root))
    rows.unlink()
    assert {state for _, state, _ in run_jobs(expansion, store)} == {"failed"}
    shutil.copy(here / "rows.csv", rows)
    digest = next(iter(expansion.jobs))
    assert "rows.csv" in json.loads((store.folder(digest) / "failure.json").read_text())["traceback"]
    assert {state for _, state, _ in run_jobs(expansion, store)} == {"failed"}
    assert {state for _, state, _ in run_jobs(expansion, store, retry_failed=True, profile=False)} == {"done"}
    assert not (store.folder(digest) / "failure.json").exists()
    assert tally(store, list(expansion.jobs)).failed == []


def _pruned(here, store, **more):
    """Return the one pruned run of a small sweep, as a worker gets it."""
    expansion = expand(grid(here, strategies=["top"], counts=[1], **more), scorer(store.root))
    (job,) = [job for job in expansion.jobs.values() if job.plan.dropped]
    return Work(job, str(store.root), "cpu"), store.folder(job.spec.digest())


def test_a_worker_refuses_a_model_that_changed_after_the_sweep_was_planned(here, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(here / "model", model)
    work, folder = _pruned(here, Store(tmp_path / "runs"), models=str(model))
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    digest, state, line = do(work)
    assert (digest, state) == (folder.name, "failed")
    assert line.startswith(f"the model '{model}' changed after the sweep was planned; put back what was there")
    assert not (folder / "record.json").exists()


def test_a_worker_refuses_rows_that_changed_after_the_sweep_was_planned(here, tmp_path):
    rows = tmp_path / "rows.csv"
    shutil.copy(here / "rows.csv", rows)
    work, folder = _pruned(here, Store(tmp_path / "runs"), dataset=str(rows))
    rows.write_text(rows.read_text() + "one more,1\n")
    _, state, line = do(work)
    assert state == "failed"
    assert line.startswith(f"the rows of the task 'custom' in '{rows}' changed after the sweep was planned")
    assert not (folder / "record.json").exists()


@pytest.mark.parametrize("device, gpus", [("auto", 1), ("cuda", 1), ("cpu", 0)])
def test_each_run_has_a_gpu_of_its_own_where_there_are_any(device, gpus, here, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    asked = []
    noting = lambda do, items, resources: asked.append(resources) or ()  # noqa: E731
    monkeypatch.setitem(executors._parts, "noting", noting)
    expansion = expand(grid(here, strategies=["top"], counts=[1]), scorer(tmp_path))
    assert list(run_jobs(expansion, Store(tmp_path), executor="noting", device=device)) == []
    assert [resources.gpus for resources in asked] == [gpus]


def test_a_run_that_somebody_else_does_is_busy_and_no_failure(here, tmp_path):
    work, folder = _pruned(here, Store(tmp_path))
    with leased(folder, Watch()) as ours:
        assert ours
        assert do(work) == (folder.name, "busy", "")
    assert not folder.exists()


@pytest.mark.parametrize("strategies", [["top"], ["contribution"], [{"name": "contribution", "protect": "0-3"}]])
def test_a_sweep_of_which_nothing_is_possible_is_refused_before_anything_is_run(strategies, here, tmp_path):
    asked = []
    with pytest.raises(UserError, match=r"no layer can be dropped in any way that was asked for: .*, count 4, model: "):
        expand(grid(here, strategies=strategies, counts=[4]), lambda *given: asked.append(given))
    assert asked == [], "no pass for scores that serve nothing"


def test_a_model_of_which_nothing_can_be_dropped_is_left_out_and_the_others_run(here, tmp_path):
    tiny_checkpoint(tmp_path / "flat", "bert", "base", 2)
    models = [str(here / "model"), str(tmp_path / "flat")]
    expansion = expand(grid(here, models=models, strategies=["top"], counts=[3]), scorer(tmp_path))
    assert {row.model for row in expansion.rows} == {"model"} and len(expansion.rows) == 2
    assert any("flat" in note for note in expansion.skipped)


def test_the_runs_of_a_machine_that_died_are_taken_up(here, tmp_path, one_by_one):
    store = Store(tmp_path)
    expansion = expand(grid(here, strategies=["top"], counts=[1]), scorer(tmp_path))
    for digest in expansion.jobs:
        store.folder(digest).mkdir()
        content = {"owner": "somebody", "beat": 3, "host": "elsewhere", "pid": 1, "start": None}
        (store.folder(digest) / LEASE_FILE).write_text(json.dumps(content))
    states = list(run_jobs(expansion, store, pause=0.1, dead_after=0.3, profile=False))
    assert sorted(states) == sorted((digest, "done", "") for digest in expansion.jobs)


@pytest.mark.parametrize("content", ["{", '{"something": "else"}', "another run's"])
def test_a_record_that_is_none_is_named_and_the_other_runs_go_on(here, tmp_path, content, one_by_one):
    store = Store(tmp_path)
    expansion = expand(grid(here, strategies=["top"], counts=[1]), scorer(tmp_path))
    full, pruned = expansion.jobs
    for folder in (store.folder(pruned), tmp_path / "elsewhere"):
        folder.mkdir()
        record = {"spec": expansion.jobs[full].spec.to_dict()}
        (folder / "record.json").write_text(json.dumps(record) if content == "another run's" else content)
    before = (store.folder(pruned) / "record.json").read_bytes()
    assert estimate(expansion, store) is None, "what cannot be read stops nobody"
    states = {digest: (state, line) for digest, state, line in run_jobs(expansion, store, profile=False)}
    assert states[full] == ("done", "") and states[pruned][0] == "failed"
    assert str(store.folder(pruned) / "record.json") in states[pruned][1]
    assert (store.folder(pruned) / "record.json").read_bytes() == before


def test_a_full_disk_stops_the_sweep_and_is_no_failure_of_the_run(here, tmp_path, monkeypatch):
    store = Store(tmp_path)
    expansion = expand(grid(here, strategies=["top"], counts=[1]), scorer(tmp_path))
    first, second = (Work(job, str(tmp_path), "cpu", profile=False) for job in expansion.jobs.values())
    assert do(first)[1] == "done"
    replace = os.replace

    def full(source, target):
        if str(target).endswith("record.json"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        do(second)
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("failure.json"))
    assert not list(tmp_path.rglob(LEASE_FILE)), "the run is free for the next who comes"
    assert tally(store).done == [first.job.spec.digest()]
    assert do(second)[1] == "done"


def test_a_clock_that_jumps_changes_nothing(here, tmp_path, monkeypatch):
    store, watch = Store(tmp_path), Watch(dead_after=30)
    folder = store.folder("0" * 12)
    with leased(folder, Watch()) as ours:
        assert ours
        content = json.loads((folder / LEASE_FILE).read_text())
        (folder / LEASE_FILE).write_text(json.dumps({**content, "host": "elsewhere"}))
        for jump in (0.0, 1e9, -1e9):
            monkeypatch.setattr(time, "time", lambda jump=jump: 1.7e9 + jump)
            assert not watch.is_dead(folder)


def test_a_foreign_record_is_counted_and_left_alone(tmp_path):
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc" / "record.json").write_text('{"something": "else"}')
    (tmp_path / "def").mkdir()
    (tmp_path / "def" / "record.json").write_text("{")
    found = tally(Store(tmp_path))
    assert found.foreign == ["abc", "def"] and not found.done
    assert (tmp_path / "abc" / "record.json").read_text() == '{"something": "else"}'


def _killed(here, folder, moments, strategies, counts, seeds, last=()):
    """Start the sweep again and again, kill all of it at some moment, and let the last one finish.

    Args:
        moments: for each of those that are killed, what waits for its moment, given the process and the store.
        last: options of the command that finishes.
    """
    spec = folder / "s.yaml"
    import yaml

    content = {
        "models": [str(here / "model")], "tasks": ["custom"], "dataset": str(here / "rows.csv"),
        "text_columns": ["text"], "label_column": "label", "strategies": strategies,
        "counts": counts, "seeds": list(range(seeds)), "heal": {"num_epochs": 0.2}, "max_length": 16,
    }  # fmt: skip
    spec.write_text(yaml.safe_dump(content))
    store, written = Store(folder / "runs"), {}
    command = [sys.executable, "-m", "depthprune.cli.main", "sweep", str(spec), "--store", str(store.root)]
    command += ["--no-profile", "--workers", "2"]
    for wait in moments:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait(process, store)
        subprocess.run(["kill", "-9", "--", f"-{process.pid}"], check=False, stderr=subprocess.DEVNULL)
        process.wait()
        for file in store.root.glob("*/record.json"):
            stamp = file.stat().st_mtime_ns
            assert written.setdefault(file, stamp) == stamp, "a run that was done was run again"
            assert readable_record(file) is not None, "a record is whole or not there"
    done = subprocess.run([*command, *last], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for file, stamp in written.items():
        assert file.stat().st_mtime_ns == stamp
    asked = list(expand(parse_sweep(content), scorer(store.root)).jobs)
    found = tally(store, asked)
    assert sorted(found.done) == sorted(asked) and not found.running and not found.waiting and not found.failed
    assert not list(store.root.glob(f"*/{LEASE_FILE}"))
    return len(asked), len(written)


def test_a_sweep_that_is_killed_loses_at_most_what_was_in_flight(here, tmp_path):
    def first_record(process, store):
        deadline = time.monotonic() + 120
        while not list(store.root.glob("*/record.json")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)

    asked, before = _killed(here, tmp_path, [first_record], ["top", "bottom"], [1, 2], 1, last=("--workers", "1"))
    assert asked == 5 and 1 <= before < 5


@pytest.mark.slow
def test_a_sweep_that_is_killed_at_twenty_moments_ends_with_every_run_done_once(here, tmp_path):
    chance = random.Random(0)

    def some_seconds(process, store):
        deadline = time.monotonic() + chance.uniform(6, 20)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)

    strategies = ["top", "bottom", "even-alternate"]
    assert _killed(here, tmp_path, [some_seconds] * 20, strategies, [1, 2, 3], seeds=4)[0] >= 20
