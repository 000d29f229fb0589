"""What can go of a store, and what never goes; checkpoints that were moved out of it."""

import json
import os
from pathlib import Path

import pytest

from depthprune.experiments.store.cleaning import CACHE, CHECKPOINT, LEFTOVER, removable, remove
from depthprune.experiments.store.kept_checkpoints import MOVED_FILE, checkpoint, hand_over
from depthprune.experiments.store.leases import Watch, leased
from depthprune.experiments.store.records import records
from depthprune.experiments.store.store import MEASURED, Store
from made_records import make_record

WEIGHTS = "model.safetensors"


def put(root: Path, dropped: tuple[int, ...], score: float, **more) -> str:
    """Write a record with a checkpoint."""
    digest = make_record(root, dropped, score, **more)
    (root / digest / "model" / WEIGHTS).write_bytes(bytes(100))
    return digest


def kinds(store: Store, **more) -> dict[str, str]:
    return {str(item.path.relative_to(store.root)): item.kind for item in removable(store, **more)}


def test_checkpoints_go_but_for_the_best_of_each_model_and_task_and_records_stay(tmp_path):
    store = Store(tmp_path)
    worse, best = put(tmp_path, (5,), 0.7), put(tmp_path, (4, 5), 0.8)
    full, other = put(tmp_path, (), 0.9), put(tmp_path, (5,), 0.6, task="rte")
    assert kinds(store) == {f"{worse}/model": CHECKPOINT, f"{full}/model": CHECKPOINT}
    assert set(kinds(store, everything=True)) == {f"{digest}/model" for digest in (worse, best, full, other)}
    before = dict(records(store))
    remove(removable(store))
    assert dict(records(store)) == before and len(before) == 4
    assert checkpoint(store, worse) is None and checkpoint(store, best) is not None
    assert kinds(store) == {}


def test_what_a_killed_run_left_goes_and_what_is_at_work_or_foreign_stays(tmp_path):
    store = Store(tmp_path)
    for name in ("dead", "alive", "failed", "foreign", MEASURED):
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.json").write_text("{}")
    (tmp_path / "dead" / "model.partial").mkdir()
    (tmp_path / "dead" / "training").mkdir()
    (tmp_path / "dead" / "logs-2").mkdir()
    (tmp_path / "failed" / "training" / "1").mkdir(parents=True)
    (tmp_path / "dead" / "claim.json").write_text(json.dumps({"host": os.uname().nodename, "pid": 2**22 + 1}))
    (tmp_path / "failed" / "failure.json").write_text("{}")
    (tmp_path / "failed" / "record.json.7.partial").write_text("{")
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    (tmp_path / MEASURED / "speed-1.json").write_text("{}")
    (tmp_path / MEASURED / "precision-1.json").write_text("{}")
    with leased(tmp_path / "alive", Watch()):
        assert kinds(store) == {
            **{"dead": LEFTOVER, "failed/record.json.7.partial": LEFTOVER, "failed/training": LEFTOVER},
            f"{MEASURED}/speed-1.json": CACHE,
        }
        remove(removable(store))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alive", "failed", "foreign", MEASURED]
    assert (tmp_path / MEASURED / "precision-1.json").exists(), "later runs train in what the earlier ones did"


def test_a_checkpoint_that_was_moved_is_found_until_somebody_changes_its_weights(tmp_path):
    store = Store(tmp_path / "runs")
    digest = put(store.root, (5,), 0.7)
    target = hand_over(store, digest, tmp_path / "out")
    assert not store.model_folder(digest).exists() and (target / WEIGHTS).stat().st_size == 100
    assert checkpoint(store, digest) == target.absolute()
    assert hand_over(store, digest, tmp_path / "again") == tmp_path / "again", "copied from where it is"
    assert (target / WEIGHTS).exists()
    (target / WEIGHTS).write_bytes(bytes(99))
    assert checkpoint(store, digest) is None
    assert (store.folder(digest) / MOVED_FILE).is_file()


@pytest.mark.parametrize("content", ["{", "[]", '{"to": 3}'])
def test_a_broken_note_of_where_a_checkpoint_is_counts_as_none(content, tmp_path):
    store = Store(tmp_path)
    digest = make_record(tmp_path, (5,), 0.7)
    (store.folder(digest) / "model").rmdir()
    (store.folder(digest) / MOVED_FILE).write_text(content)
    assert checkpoint(store, digest) is None
