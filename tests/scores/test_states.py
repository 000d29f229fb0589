"""Hidden states kept in memory and on the disk."""

import pytest
import torch

from depthprune.errors import UserError
from depthprune.scores.states import StateStore

KIB = torch.ones(256)  # 1,024 bytes in float32


def test_what_does_not_fit_goes_to_the_disk_and_comes_back(tmp_path):
    with StateStore(2500, tmp_path) as store:
        for i in range(4):
            store.put(((i,), 0), KIB * i, spill=True)
        assert store.bytes <= 2500 and len(list(tmp_path.rglob("*.safetensors"))) == 2
        for i in range(4):
            assert torch.equal(store.get(((i,), 0)), KIB * i)
    assert list(tmp_path.iterdir()) == [], "its files are gone with it"


def test_a_draft_is_not_worth_the_disk(tmp_path):
    with StateStore(1500, tmp_path) as store:
        store.put(((0,), 0), KIB, spill=False)
        store.put(((1,), 0), KIB, spill=False)
        assert ((0,), 0) in store and ((1,), 0) not in store
        assert list(tmp_path.iterdir()) == []


def test_what_is_not_kept_is_forgotten_in_memory_and_on_the_disk(tmp_path):
    with StateStore(1500, tmp_path) as store:
        for kept in ((0,), (0, 1), (0, 2), (5, 6)):
            store.put((kept, 0), KIB, spill=True)
        store.keep([(0, 2, 3)], also=[(5, 6)])
        assert [(kept, 0) in store for kept in ((0,), (0, 1), (0, 2), (5, 6))] == [True, False, True, True]
        assert len(list(tmp_path.rglob("*.safetensors"))) + (store.bytes > 0) == 3


def test_without_a_folder_nothing_is_written():
    with StateStore(1500) as store:
        store.put(((0,), 0), KIB, spill=True)
        store.put(((1,), 0), KIB, spill=True)
        assert ((1,), 0) not in store


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with StateStore(0, tmp_path / "file") as store, pytest.raises(UserError, match="no room for hidden states"):
        store.put(((0,), 0), KIB, spill=True)
