"""Samples for scores and searches."""

import io
import json

import pytest

from depthprune.errors import LoadError, UserError
from depthprune.tasks.data.calibration import CalibrationOptions, load_calibration
from tiny_models import SEP, tiny_tokenizer, words


def load(data, *, blocks=True, **more):
    return load_calibration(CalibrationOptions(str(data), **{"length": 16, **more}), tiny_tokenizer(), blocks=blocks)


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text(words(3000))
    return file


def test_blocks_are_exactly_as_long_as_asked_and_do_not_repeat(text):
    sample = load(text, samples=20)
    assert sample.kind == "blocks" and [len(ids) for ids in sample.ids] == [16] * 20
    assert len({tuple(ids) for ids in sample.ids}) == 20 and sample.tokens == 320


def test_examples_are_lines_cut_to_length(text):
    sample = load(text, blocks=False, samples=20)
    assert sample.kind == "examples" and len(sample.ids) == 20
    assert max(map(len, sample.ids)) <= 16


def test_the_same_sample_comes_from_every_kind_of_file(tmp_path, text, monkeypatch):
    lines = text.read_text().splitlines()
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    (tmp_path / "t.csv").write_text("other,text\n" + "".join(f"1,{line}\n" for line in lines))
    import lzma

    (tmp_path / "t.txt.xz").write_bytes(lzma.compress(text.read_bytes()))
    from datasets import Dataset

    Dataset.from_dict({"text": lines}).to_parquet(tmp_path / "t.parquet")
    wanted = load(text, samples=10).fingerprint
    for name in ("t.jsonl", "t.csv", "t.txt.xz", "t.parquet"):
        assert load(tmp_path / name, samples=10).fingerprint == wanted, name
    monkeypatch.setattr("sys.stdin", io.StringIO(text.read_text()))
    assert load("-", samples=10).fingerprint == wanted


def test_a_seed_is_a_sample(text):
    one, again, other = (load(text, samples=10, seed=seed).fingerprint for seed in (1, 1, 2))
    assert one == again != other


def test_the_rows_of_a_task_come_with_their_labels(shared_data):
    sample = load("mrpc", dataset=str(shared_data / "glue"), samples=30)
    assert sample.kind == "examples" and len(sample.labels) == 30 and set(sample.labels) <= {0.0, 1.0}
    whole = load("mrpc", dataset=str(shared_data / "glue"), split="validation")
    assert len(whole.ids) == 408, "the whole development set, as the paper has it"


def test_a_task_gives_training_rows_unless_another_split_is_named():
    sample, named = load("docstrings"), load("docstrings", split="validation", samples=20)
    assert len(sample.ids) == 256 and sample.describe()["split"] == "train"
    assert named.describe()["split"] == "validation" and len(named.ids) == 20


def test_own_rows_with_labels_are_those_of_the_custom_task(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("one,two,label\n" + "".join(f"ba be,{w},{'xy'[i % 2]}\n" for i, w in enumerate(words(40).split())))
    sample = load(file, text_columns=("one", "two"), label_column="label")
    assert sample.task is not None and sample.task.labels == ("x", "y") and sample.describe()["split"] == "train"
    assert sample.labels is not None and len(sample.labels) == 36, "what is held out scores the run"
    assert all((ids == SEP).sum() == 2 for ids in sample.ids), "a pair"
    bare = load(file, text_columns=("one", "two"), blocks=False)
    assert bare.labels is None and len(bare.ids) == 40
    with pytest.raises(UserError, match="running text comes from one column"):
        load(file, text_columns=("one", "two"))


@pytest.mark.parametrize(
    "content, more, message",
    [
        ("", {}, "is empty; give some text"),
        (" \n\n", {}, "is empty; give some text"),
        ("ba be\n", {}, "has 0 blocks of 16 tokens, not 256; give a smaller --length or more text"),
        (words(300), {"samples": 500}, r"has \d+ blocks of 16 tokens, not 500; give --samples \d+, a smaller --length"),
        (words(300), {"samples": 0}, "--samples 0 is too small"),
        (words(300), {"length": 2}, "--length 2 is too short"),
        (words(300), {"length": 33}, "longer than the 32 tokens"),
    ],
)
def test_a_sample_that_cannot_be_taken_is_one_line(content, more, message, tmp_path):
    file = tmp_path / "t.txt"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        load(file, **more)


def test_too_few_examples_are_refused_with_their_number(text):
    with pytest.raises(UserError, match="has 250 examples, not 251; give --samples 250 or less"):
        load(text, blocks=False, samples=251)


def test_a_table_whose_text_column_is_in_doubt_is_refused(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("one,two\nba,be\n")
    with pytest.raises(LoadError, match=r"--text-columns; it has 'one', 'two'"):
        load(file)
    with pytest.raises(LoadError, match="has no column 'three'"):
        load(file, text_column="three")
    assert load(file, text_column="two", blocks=False, samples=1).kind == "examples"


def test_a_folder_of_a_data_set_is_read_by_its_splits(tmp_path, text):
    for split, start in (("train", 0), ("test", 100)):
        lines = text.read_text().splitlines()[start : start + 100]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    text.unlink()
    one, other = (load(tmp_path, split=split, blocks=False, samples=100).fingerprint for split in (None, "test"))
    assert one != other
    with pytest.raises(LoadError, match="has no split 'dev'; it has 'train', 'test'"):
        load(tmp_path, split="dev")


def test_a_file_of_another_kind_is_refused(tmp_path):
    file = tmp_path / "t.pdf"
    file.write_text("x")
    with pytest.raises(LoadError, match="is not a supported data file"):
        load(file)
