"""Temporary folders: gone with the command, or with the next one where it was killed."""

import os
import signal
import subprocess
import sys

import pytest

from depthprune.scratch import scratch_folder

HOLD = """
import sys, time
from pathlib import Path
from depthprune.scratch import scratch_folder
with scratch_folder("test", within=Path(sys.argv[1])) as folder:
    (folder / "content").write_text("half")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_a_folder_goes_with_its_context_however_that_ends(tmp_path):
    with pytest.raises(KeyboardInterrupt), scratch_folder("test", within=tmp_path) as folder:
        (folder / "deep").mkdir()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_the_folder_of_a_killed_command_is_removed_by_the_next_and_nobody_elses(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    left = holder.stdout.readline().strip()
    (tmp_path / "depthprune-mine").mkdir()
    (tmp_path / "depthprune-mine" / "notes").write_text("keep")
    (tmp_path / "depthprune-link").symlink_to(left)
    with scratch_folder("other", within=tmp_path):
        assert os.path.exists(f"{left}/content"), "it is in use"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert os.path.exists(f"{left}/content"), "else there is nothing to remove"
    with scratch_folder("other", within=tmp_path) as folder:
        assert set(os.listdir(tmp_path)) == {"depthprune-mine", "depthprune-link", folder.name}
    assert (tmp_path / "depthprune-mine" / "notes").read_text() == "keep"
