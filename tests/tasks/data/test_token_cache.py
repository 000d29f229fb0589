"""Tokenised rows are kept for the next process, under what they were made of, and do not fill the disk."""

import os

from datasets import Dataset

from depthprune.tasks import Task, TaskData
from depthprune.tasks.data import encoding as module
from depthprune.tasks.data.encoding import encode
from depthprune.tasks.data.token_cache import kept, token_folder
from tiny_models import tiny_tokenizer

TASK = Task("one", ("text",), "label", ("no", "yes"), ("accuracy",))


def data(*texts: str) -> TaskData:
    return TaskData(TASK, {"train": Dataset.from_dict({"text": list(texts), "label": [0] * len(texts)})})


def another_process(monkeypatch) -> None:
    """Forget what this process has tokenised."""
    monkeypatch.setattr(module, "_cache", {})


def test_rows_are_not_tokenised_again_by_another_process(monkeypatch):
    first = encode(data("ba be", "da"), tiny_tokenizer(), 8)["train"].to_list()
    another_process(monkeypatch)

    def not_again(*_, **__):
        raise AssertionError("they are kept")

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "map", not_again)
        assert encode(data("ba be", "da"), tiny_tokenizer(), 8)["train"].to_list() == first
    assert encode(data("ba be", "du"), tiny_tokenizer(), 8)["train"].to_list() != first, "other rows, another file"


def test_a_file_that_was_cut_short_is_made_anew(monkeypatch):
    first = encode(data("ba", "be be"), tiny_tokenizer(), 8)["train"].to_list()
    newest = max(token_folder().glob("*.arrow"), key=lambda file: file.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:40])
    another_process(monkeypatch)

    assert encode(data("ba", "be be"), tiny_tokenizer(), 8)["train"].to_list() == first


def test_files_that_were_not_used_for_longest_go_first(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    rows = Dataset.from_dict({"numbers": list(range(500))})

    def make(file):
        return rows.map(lambda some: some, batched=True, cache_file_name=file, new_fingerprint="0" * 16)

    kept("old", make)
    size = (token_folder() / "old.arrow").stat().st_size
    kept("used", make)
    os.utime(token_folder() / "old.arrow", (1, 1))
    kept("new", make, largest=2 * size)

    assert sorted(file.name for file in token_folder().iterdir()) == ["new.arrow", "used.arrow"]
    assert kept("old", make).to_list() == rows.to_list()
