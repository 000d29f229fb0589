"""Files are written by one writer: a reader sees the old one or the whole new one."""

import errno
import json
import os
import re
from pathlib import Path

import pytest

import depthprune
from depthprune.errors import OutputError
from depthprune.result_file import replace_json, write_json, write_once


def test_a_file_that_cannot_be_replaced_is_as_it_was_and_nothing_is_left_beside_it(tmp_path, monkeypatch):
    file = tmp_path / "file.json"
    replace_json(file, {"old": "ä"})
    before = file.read_bytes()
    assert json.loads(before) == {"old": "ä"} and "ä".encode() in before

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(os, "link", full)
    for write in replace_json, write_once:
        with pytest.raises(OSError, match="No space left on device"):
            write(file, {"new": 1})
    with pytest.raises(OutputError, match=r"the output '.*file.json' cannot be written \(No space left on device\)"):
        write_json(file, {"new": 1})
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["file.json"]


def test_of_several_that_write_once_the_first_one_stays(tmp_path):
    write_once(tmp_path / "file.json", 1)
    write_once(tmp_path / "file.json", 2)
    assert json.loads((tmp_path / "file.json").read_text()) == 1 and os.listdir(tmp_path) == ["file.json"]


def test_nothing_else_writes_json_files():
    root = Path(depthprune.__file__).parent
    writing = re.compile(r"json\.dump\(|write_text\(\s*json\.|os\.replace\(")
    found = {file.relative_to(root).as_posix() for file in root.rglob("*.py") if writing.search(file.read_text())}
    # A claim is made with O_EXCL: whoever makes it first has the run.
    assert found == {"result_file.py", "experiments/store/leases.py"}
