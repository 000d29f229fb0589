"""The embedded task: the same rows everywhere, balanced, and split so that a score means something."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from depthprune.errors import UserError
from depthprune.tasks import stdlib_docstrings as task


@pytest.fixture(scope="module")
def splits():
    return task.rows()


def test_the_same_seed_gives_the_same_rows(splits):
    assert task.rows(seed=0) == splits


def test_another_seed_gives_other_rows_and_other_validation_modules(splits):
    other = task.rows(seed=1)
    assert other != splits
    assert _modules(other["validation"]) != _modules(splits["validation"])


def test_the_rows_do_not_depend_on_the_hash_seed(splits):
    script = "import json; from depthprune.tasks.stdlib_docstrings import rows; print(json.dumps(rows()))"
    for hash_seed in ("1", "2"):
        assert json.loads(_run(script, PYTHONHASHSEED=hash_seed)) == splits


def test_reading_the_task_imports_no_heavy_package_and_none_of_the_library_it_reads():
    script = (
        "import sys; from depthprune.tasks.stdlib_docstrings import rows; rows();"
        "watched = 'torch', 'transformers', 'datasets', 'imaplib', 'xmlrpc', 'ftplib';"
        "print([name for name in watched if name in sys.modules])"
    )
    assert _run(script).strip() == "[]"


@pytest.mark.parametrize(
    ("split", "per_label"),
    [("train", task.TRAIN_PER_LABEL), ("validation", task.VALIDATION_PER_LABEL)],
)
def test_every_label_has_the_same_number_of_rows(splits, split, per_label):
    counts = Counter(row["label"] for row in splits[split])
    assert counts == dict.fromkeys(range(len(task.LABELS)), per_label)


@pytest.mark.parametrize("seed", range(3))
def test_no_module_stands_in_both_splits(seed):
    splits = task.rows(seed=seed)
    train, validation = _modules(splits["train"]), _modules(splits["validation"])
    assert train and validation
    assert not train & validation


def test_each_label_is_validated_on_several_modules(splits):
    for label in range(len(task.LABELS)):
        assert len({row["module"] for row in splits["validation"] if row["label"] == label}) >= 4


def test_no_sentence_occurs_twice(splits):
    texts = [row["sentence"].casefold() for split in splits.values() for row in split]
    assert len(texts) == len(set(texts)) > 0


def test_there_are_about_a_thousand_rows(splits):
    assert list(splits) == ["train", "validation"]
    assert 700 <= len(splits["train"]) <= 1000
    assert 250 <= len(splits["validation"]) <= 300


def test_rows_have_a_short_normalised_sentence_a_known_label_and_a_module(splits):
    for row in splits["train"] + splits["validation"]:
        assert list(row) == ["sentence", "label", "module"]
        words = row["sentence"].split()
        assert task.MIN_WORDS <= len(words) <= task.MAX_WORDS
        assert row["sentence"] == " ".join(words)
        assert row["label"] in range(len(task.LABELS))
        assert row["module"]


def test_labels_stand_in_mixed_order(splits):
    """Rows sorted by label would train one label after the other where a caller does not shuffle."""
    assert len({row["label"] for row in splits["train"][:50]}) == len(task.LABELS)


def test_no_module_is_listed_under_two_labels():
    listed = [name for names in task._SECTIONS.values() for name, _ in task._modules(names)]
    assert len(listed) == len(set(listed)) > 0


@pytest.mark.parametrize(
    "removed",
    [
        "asynchat",
        "asyncore",
        "imp",
        "distutils",
        "smtpd",
        "cgi",
        "telnetlib",
        "nntplib",
        "crypt",
        "pipes",
        "uu",
    ],
)
def test_no_module_that_newer_pythons_lack_is_listed(removed):
    listed = {file for names in task._SECTIONS.values() for _, files in task._modules(names) for file in files}
    assert "asyncio" in listed
    assert removed not in listed


def test_an_empty_library_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"has 0 usable docstrings.*use a Python whose standard library") as caught:
        task.rows(library=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_source_of_another_python_is_an_error_not_fewer_rows(tmp_path):
    (tmp_path / "calendar.py").write_text("print 'a Python 2 statement'\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"calendar\.py' is not source that this Python reads"):
        task.rows(library=tmp_path)


def test_a_sentence_of_two_modules_is_used_for_neither(tmp_path, monkeypatch):
    monkeypatch.setattr(task, "_SECTIONS", {"one": "a b", "two": "c d"})
    monkeypatch.setattr(task, "TRAIN_PER_LABEL", 1)
    monkeypatch.setattr(task, "VALIDATION_PER_LABEL", 1)
    shared = '"""Both modules say this sentence."""\n'
    for name in "abcd":
        own = f"def f():\n    '''Only module {name} says this.'''\n"
        (tmp_path / f"{name}.py").write_text(shared + own, encoding="utf-8")
    found = task.rows(library=tmp_path)
    sentences = sorted(row["sentence"] for split in found.values() for row in split)
    assert sentences == [f"Only module {name} says this." for name in "abcd"]


def test_only_public_members_are_read(tmp_path):
    source = (
        '"""The module says a sentence."""\n'
        "class A:\n"
        "    '''The class says a sentence.'''\n"
        "    def f(self):\n"
        "        '''The method says a sentence.'''\n"
        "    def _f(self):\n"
        "        '''The private method says nothing.'''\n"
        "def _g():\n"
        "    '''The private function says nothing.'''\n"
        "def h():\n"
        "    '''Too few words.'''\n"
    )
    (tmp_path / "one.py").write_text(source, encoding="utf-8")
    found = task._openings(tmp_path, ["one"])
    assert found == [f"The {who} says a sentence." for who in ("module", "class", "method")]


def _modules(members):
    return {row["module"] for row in members}


def _run(script, **variables):
    # PYTHONPATH by hand: the package may be on this process's path without being installed.
    source = str(Path(task.__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": source} | variables
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True, text=True)
    return done.stdout
