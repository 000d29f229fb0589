"""The store: a run is done exactly if its record is there, and whatever stops a run leaves no half of one."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

import pytest

from depthprune.errors import OutputError, UserError
from depthprune.experiments.store.leases import BusyError
from depthprune.experiments.store.records import records
from depthprune.experiments.store.store import Store, readable_record
from depthprune.experiments.sweeps.status import tally
from depthprune.specs import EvalSpec, RunSpec
from without_root import folder_without_root

SPEC = RunSpec("sha256:01", EvalSpec("sst2", "sha256:02"))
DIGEST = SPEC.digest()
OUTCOME = {
    **{"status": "done", "note": "für immer", "primary": "accuracy", "metrics": {"accuracy": {"value": 0.5}}},
    **{"plan": {"depth": 2}, "profile": {"parameters": 7}, "seconds": 1.0},
}
RECORD = {"spec": SPEC.to_dict(), "outcome": OUTCOME}


def names(folder: Path) -> list[str]:
    """Return everything under `folder`."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_finished_run_is_found_by_its_digest(tmp_path):
    store = Store(tmp_path / "runs")
    assert store.record(DIGEST) is None
    assert list(records(store)) == []
    with store.lease(SPEC) as folder:
        assert folder == store.folder(DIGEST)
        assert json.loads((folder / "spec.json").read_text()) == SPEC.to_dict()
        assert store.record(DIGEST) is None, "a leased run is not done"
        store.finish(DIGEST, RECORD)
    assert Store(str(tmp_path / "runs")).record(DIGEST) == RECORD
    assert names(tmp_path) == ["runs", f"runs/{DIGEST}", f"runs/{DIGEST}/record.json", f"runs/{DIGEST}/spec.json"]


def test_records_come_in_the_order_of_their_digests_without_what_is_not_done(tmp_path):
    store, specs = Store(tmp_path), [dataclasses.replace(SPEC, seed=seed) for seed in range(9)]
    for spec in specs[:8]:
        with store.lease(spec):
            store.finish(spec.digest(), {"spec": spec.to_dict(), "outcome": OUTCOME})
    with pytest.raises(ZeroDivisionError), store.lease(specs[8]):
        _ = 1 / 0
    (tmp_path / "notes.txt").write_text("mine")
    expected = [spec.seed for spec in sorted(specs[:8], key=RunSpec.digest)]
    assert expected != sorted(expected), "else the order shows nothing"
    assert [record["spec"]["seed"] for _, record in records(store) if record is not None] == expected


def test_a_half_written_record_does_not_count_as_done(tmp_path):
    store = Store(tmp_path / "runs")
    with pytest.raises(TypeError), store.lease(SPEC):
        store.finish(DIGEST, RECORD | {"not json": object()})
    assert store.record(DIGEST) is None
    assert list(records(store)) == []


def test_a_record_replaces_the_earlier_one_only_when_it_is_whole(tmp_path, monkeypatch):
    store = Store(tmp_path / "runs")
    with store.lease(SPEC):
        store.finish(DIGEST, RECORD)

    def killed(source, target):
        assert json.loads(Path(source).read_text(encoding="utf-8")) == {"second": True}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), store.lease(SPEC):
        monkeypatch.setattr(os, "replace", killed)
        store.finish(DIGEST, {"second": True})
    assert store.record(DIGEST) == RECORD


def test_a_record_that_is_not_json_is_named(tmp_path):
    store = Store(tmp_path)
    store.folder(DIGEST).mkdir()
    (store.folder(DIGEST) / "record.json").write_text('{"spec": ')
    file = store.folder(DIGEST) / "record.json"
    with pytest.raises(UserError, match=rf"'{file}' is not the record of a run \(not JSON: .*\); remove its folder"):
        store.record(DIGEST)


@pytest.mark.parametrize(
    "content, problem",
    [
        ({"spec": SPEC.to_dict()}, "it has no 'outcome'"),
        ({"spec": SPEC.to_dict(), "outcome": {**OUTCOME, "metrics": {}}}, "it has no 'accuracy'"),
        ([], "list indices"),
    ],
)
def test_what_is_no_record_is_done_for_nobody(content, problem, tmp_path):
    store = Store(tmp_path)
    store.folder(DIGEST).mkdir()
    file = store.folder(DIGEST) / "record.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"is not the record of a run \({problem}"):
        store.record(DIGEST)
    assert readable_record(file) is None and tally(store).done == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, UserError])
def test_an_interrupt_or_a_mistake_of_the_user_leaves_no_store_where_there_was_none(stop, tmp_path):
    with pytest.raises(stop), Store(tmp_path / "new" / "runs").lease(SPEC) as folder:
        (folder / "model").mkdir()
        (folder / "model" / "half").write_text("half")
        raise stop
    assert names(tmp_path) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, UserError])
def test_an_interrupt_or_a_mistake_of_the_user_leaves_an_existing_store_as_it_was(stop, tmp_path):
    store, other = Store(tmp_path / "runs"), dataclasses.replace(SPEC, seed=7)
    with store.lease(other):
        store.finish(other.digest(), RECORD)
    before = names(tmp_path)
    with pytest.raises(stop), store.lease(SPEC):
        raise stop
    assert names(tmp_path) == before
    assert store.record(other.digest()) == RECORD


@pytest.mark.parametrize("stop", [KeyboardInterrupt, UserError])
def test_an_interrupt_or_a_mistake_of_the_user_leaves_an_empty_store(stop, tmp_path):
    with pytest.raises(stop), Store(tmp_path).lease(SPEC):
        raise stop
    assert tmp_path.is_dir()
    assert names(tmp_path) == []


def test_an_interrupt_leaves_the_state_of_a_training_and_its_end_or_a_mistake_does_not(tmp_path):
    store = Store(tmp_path)

    def interrupted(error: type[BaseException]) -> list[str]:
        with pytest.raises(error), store.lease(SPEC) as folder:
            (folder / "training" / "1" / "checkpoint-5").mkdir(parents=True, exist_ok=True)
            (folder / "logs").mkdir()
            raise error
        return names(tmp_path)

    left = [
        DIGEST,
        *(f"{DIGEST}/{name}" for name in ("spec.json", "training", "training/1", "training/1/checkpoint-5")),
    ]
    assert interrupted(KeyboardInterrupt) == left
    assert interrupted(KeyboardInterrupt) == left
    assert tally(store).foreign == []
    assert interrupted(UserError) == []
    interrupted(KeyboardInterrupt)
    with store.lease(SPEC):
        store.finish(DIGEST, RECORD)
    assert names(tmp_path) == [DIGEST, f"{DIGEST}/record.json", f"{DIGEST}/spec.json"]


def test_an_interrupt_of_a_repeated_run_leaves_the_earlier_record(tmp_path):
    store = Store(tmp_path)
    with store.lease(SPEC):
        store.finish(DIGEST, RECORD)
    before = names(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.lease(SPEC):
        raise KeyboardInterrupt
    assert store.record(DIGEST) == RECORD
    assert names(tmp_path) == before


def test_an_error_leaves_its_traceback(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.lease(SPEC):
        raise RuntimeError("out of ideas")
    failure = json.loads((store.folder(DIGEST) / "failure.json").read_text())
    assert failure["spec"] == SPEC.to_dict()
    assert failure["traceback"].startswith("Traceback (most recent call last)")
    assert "test_an_error_leaves_its_traceback" in failure["traceback"]
    assert failure["traceback"].endswith("RuntimeError: out of ideas\n")
    assert store.record(DIGEST) is None


def test_a_finished_run_takes_the_failure_of_an_earlier_one_away(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.lease(SPEC):
        raise RuntimeError
    assert (store.folder(DIGEST) / "failure.json").is_file()
    with store.lease(SPEC):
        store.finish(DIGEST, RECORD)
    assert names(store.folder(DIGEST)) == ["record.json", "spec.json"]


def test_a_failure_outlives_an_interrupted_second_try(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.lease(SPEC):
        raise RuntimeError
    with pytest.raises(KeyboardInterrupt), store.lease(SPEC):
        raise KeyboardInterrupt
    assert names(store.folder(DIGEST)) == ["failure.json", "spec.json"]


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match=rf"'{tmp_path / 'file'}' cannot be written .*; choose another --store"),
        Store(tmp_path / "file").lease(SPEC),
    ):
        raise AssertionError("the run must not begin")
    assert names(tmp_path) == ["file"]


def test_two_at_once_on_one_run_and_one_interrupted_lose_nothing(tmp_path):
    store, refused = Store(tmp_path / "runs"), []
    with store.lease(SPEC):
        with pytest.raises(BusyError, match=rf"process {os.getpid()} is doing the run {DIGEST}"), store.lease(SPEC):
            refused.append("not reached")
        store.finish(DIGEST, RECORD)
    assert store.record(DIGEST) == RECORD and not refused


def test_who_waits_for_a_run_finds_its_record_and_an_interrupt_then_leaves_it(tmp_path):
    store, waited = Store(tmp_path / "runs"), []
    with contextlib.ExitStack() as other:
        other.enter_context(store.lease(SPEC))

        def on_wait(who):
            waited.append(who)
            store.finish(DIGEST, RECORD)
            other.close()

        with pytest.raises(KeyboardInterrupt), store.lease(SPEC, on_wait=on_wait, pause=0):
            assert store.record(DIGEST) == RECORD
            raise KeyboardInterrupt
    assert waited == [f"process {os.getpid()}"]
    assert store.record(DIGEST) == RECORD
    assert names(store.folder(DIGEST)) == ["record.json", "spec.json"]


def test_a_store_in_a_folder_that_cannot_be_written_is_refused_at_once():
    with folder_without_root() as folder:
        (folder / "closed").mkdir(mode=0o500)
        with pytest.raises(OutputError, match=r"closed/runs' cannot be written \(Permission denied\); choose another"):
            Store(folder / "closed" / "runs").check_writable()
        Store(folder / "new" / "runs").check_writable()
        assert not (folder / "new").exists()


def test_what_a_killed_run_left_half_written_goes_when_the_run_is_done_again(tmp_path):
    store = Store(tmp_path)
    (store.folder(DIGEST) / "model.partial").mkdir(parents=True)
    (store.folder(DIGEST) / "model.partial" / "model.safetensors").write_text("half")
    (store.folder(DIGEST) / "record.json.123.partial").write_text("{")
    (store.folder(DIGEST) / "spec.json").write_text("{}")
    with store.lease(SPEC):
        store.finish(DIGEST, RECORD)
    assert names(store.folder(DIGEST)) == ["record.json", "spec.json"]
