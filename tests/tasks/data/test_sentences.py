"""Texts without labels: distinct, a seeded part held out, cut to what a model takes."""

import lzma

import pytest

from depthprune.errors import UserError
from depthprune.tasks.data.calibration import CalibrationOptions
from depthprune.tasks.data.sentences import encode_texts, number_cut, read_sentences
from tiny_models import tiny_tokenizer

LINES = [f"ba be {a} {b}" for a in ("da", "fu", "ki", "lo", "me") for b in ("da", "fu", "ki", "lo", "me", "no")]


def written(path, lines=LINES):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_every_text_is_trained_on_or_held_out_once_whatever_the_order_of_seeds(tmp_path):
    file = written(tmp_path / "lines.txt", [*LINES, "", "   ", *(f" {line} " for line in LINES)])
    found = read_sentences(CalibrationOptions(file, seed=1))
    assert sorted(found.train + found.held_out) == sorted(LINES) and len(found.held_out) == 3
    assert read_sentences(CalibrationOptions(file, seed=1)) == found
    other = read_sentences(CalibrationOptions(file, seed=2))
    assert other.held_out != found.held_out and other.fingerprint != found.fingerprint


def test_texts_come_from_packed_files_columns_and_tasks(tmp_path):
    (tmp_path / "lines.txt.xz").write_bytes(lzma.compress("\n".join(LINES).encode()))
    rows = "\n".join(f"{one},{two},{i}.5" for i, (one, two) in enumerate(zip(LINES[:15], LINES[15:], strict=True)))
    (tmp_path / "rows.csv").write_text(f"a,b,amount\n{rows}\n")
    table = CalibrationOptions(str(tmp_path / "rows.csv"), text_columns=("a", "b"))
    task = CalibrationOptions("custom", str(tmp_path / "rows.csv"), text_columns=("a", "b"), label_column="amount")
    for options in (CalibrationOptions(str(tmp_path / "lines.txt.xz")), table):
        found = read_sentences(options)
        assert sorted(found.train + found.held_out) == sorted(LINES)
    found = read_sentences(task)
    assert len(found.train + found.held_out) == 26, "the rows that score the task are left out"


@pytest.mark.parametrize(
    "lines, more, match",
    [
        ([""], {}, "holds no text; give a file with one sentence a line"),
        (LINES[:5], {}, "5 distinct texts from .*, 0 of them held out, are not enough .* give 20 or more"),
        (LINES, {"held_out": 25}, "30 distinct texts from .*, 25 of them held out, are not enough .* give 35 or more"),
    ],
)
def test_too_few_texts_are_refused_with_how_many_it_takes(tmp_path, lines, more, match):
    with pytest.raises(UserError, match=match):
        read_sentences(CalibrationOptions(written(tmp_path / "lines.txt", lines)), **more)


def test_more_texts_than_there_are_cannot_be_asked_for(tmp_path):
    file = written(tmp_path / "lines.txt")
    assert len(read_sentences(CalibrationOptions(file, samples=25)).train) == 23
    with pytest.raises(UserError, match="has 30 distinct texts, not 31; lower --samples"):
        read_sentences(CalibrationOptions(file, samples=31))


def test_texts_that_are_too_long_are_cut_and_counted():
    texts = ["ba", "ba be bi", "ba be bi bo", "ba be bi bo bu"]
    rows = encode_texts(texts, tiny_tokenizer(), 5)
    assert rows["length"][:] == [3, 5, 5, 5] and [len(ids) for ids in rows["input_ids"][:]] == [3, 5, 5, 5]
    assert number_cut(texts, rows, tiny_tokenizer(), 5) == 2
