"""Folders written whole or not at all: bad places, leftovers, other commands at work, full disks."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from depthprune.errors import OutputError
from depthprune.output import LOCK, check_outside, check_target, copy_checkpoint, whole_folder
from tiny_models import tiny_checkpoint
from without_root import folder_without_root


@pytest.fixture
def own_folder() -> Iterator[Path]:
    with folder_without_root() as folder:
        yield folder


def write(target: Path, text: str = "new") -> None:
    with whole_folder(target) as partial:
        (partial / "file").write_text(text)


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


KILLED = """
import os, signal, sys
from pathlib import Path
from depthprune.output import whole_folder
with whole_folder(Path(sys.argv[1])) as partial:
    (partial / "old").write_bytes(bytes(8_000_000))
    (partial / "folder").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(target: Path) -> None:
    """Leave what a command leaves that is killed while it writes `target`."""
    done = subprocess.run([sys.executable, "-c", KILLED, target], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (target.with_name(target.name + ".partial") / "old").is_file()


def test_a_folder_appears_with_its_name_only_when_it_is_whole(tmp_path):
    with whole_folder(tmp_path / "new" / "out") as partial:
        (partial / "file").write_text("new")
        assert partial == tmp_path / "new" / "out.partial"
        assert not (tmp_path / "new" / "out").exists()

    assert names_in(tmp_path) == ["new", "new/out", "new/out/file"]


def test_an_empty_folder_and_a_link_are_written_through(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")

    write(tmp_path / "empty")
    write(tmp_path / "link")

    assert names_in(tmp_path) == ["elsewhere", "elsewhere/file", "empty", "empty/file", "link"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_nothing(tmp_path, error):
    with pytest.raises(error), whole_folder(tmp_path / "a" / "b" / "out") as partial:
        (partial / "folder").mkdir()
        (partial / "folder" / "file").write_text("half")
        raise error

    assert names_in(tmp_path) == []


def bad_target(kind: str, folder: Path) -> Path:
    target = folder / "out"
    if kind == "a file":
        target.write_text("mine")
    elif kind == "a full folder":
        target.mkdir()
        (target / "mine").write_text("mine")
    elif kind == "a link to a file":
        (folder / "mine").write_text("mine")
        target.symlink_to("mine")
    elif kind == "a circle of links":
        target.symlink_to("round")
        (folder / "round").symlink_to("out")
    elif kind == "inside a file":
        target.write_text("mine")
        target /= "out"
    elif kind == "the root of a disk":
        target = Path("/proc")
    elif kind == "the current folder":
        target = Path()
    elif kind == "a name that is too long":
        target = folder / ("o" * 250)
    return target


@pytest.mark.parametrize(
    "kind, message",
    [
        ("a file", "is not an empty folder"),
        ("a full folder", "is not an empty folder"),
        ("a link to a file", "is not an empty folder"),
        ("a circle of links", "is not an empty folder"),
        ("inside a file", "is not a folder"),
        ("the root of a disk", "name a folder inside it"),
        ("the current folder", "name one inside it"),
        ("a name that is too long", "choose a shorter one"),
    ],
)
def test_a_bad_target_is_refused_and_what_is_there_stays(tmp_path, kind, message):
    target = bad_target(kind, tmp_path)
    before = names_in(tmp_path)

    with pytest.raises(OutputError, match=message) as stop, whole_folder(target):
        pytest.fail("the work was begun")

    assert "\n" not in str(stop.value)
    assert names_in(tmp_path) == before


@pytest.mark.parametrize("parent", ["closed", "closed/new"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(own_folder, parent):
    (own_folder / "closed").mkdir(mode=0o500)

    with pytest.raises(OutputError, match=r"closed' cannot be written; choose another"):
        check_target(own_folder / parent / "out")


def test_a_folder_that_is_closed_during_the_work_is_one_line(own_folder):
    with pytest.raises(OutputError, match=r"cannot be written \(permission denied\)"):  # noqa: SIM117
        with whole_folder(own_folder / "out") as partial:
            own_folder.chmod(0o500)
            partial.chmod(0o500)
            (partial / "file").write_text("new")

    own_folder.chmod(0o700)
    assert not (own_folder / "out").exists()


def test_a_source_that_cannot_be_read_is_not_blamed_on_the_output(own_folder):
    (own_folder / "source").touch(mode=0o200)

    with pytest.raises(PermissionError), whole_folder(own_folder / "out"):
        (own_folder / "source").read_text()

    assert names_in(own_folder) == ["source"]


def test_a_target_inside_the_model_is_refused(tmp_path):
    source = tmp_path / "model"
    source.mkdir()
    (tmp_path / "link").symlink_to("model")

    for target in (source, source / "out", source / "a" / ".." / "out", tmp_path / "link" / "out"):
        with pytest.raises(OutputError, match="inside the model's own folder"):
            check_outside(target, source)
    check_outside(tmp_path / "model-pruned", source)
    with pytest.raises(OutputError, match="inside the model's own folder"):
        copy_checkpoint(source, source / "out")


def test_what_a_killed_command_left_is_removed(tmp_path):
    killed(tmp_path / "out")

    write(tmp_path / "out")

    assert names_in(tmp_path) == ["out", "out/file"]


@pytest.mark.parametrize("kind", ["a folder", "a file", "a link"])
def test_something_of_ones_own_by_the_name_of_the_partial_folder_is_not_touched(tmp_path, kind):
    mine = tmp_path / "out.partial"
    if kind == "a folder":
        mine.mkdir()
        (mine / "thesis").write_text("mine")
    elif kind == "a file":
        mine.write_text("mine")
    else:
        (tmp_path / "empty").mkdir()
        mine.symlink_to("empty")
    before = names_in(tmp_path)

    with pytest.raises(OutputError, match=r"out\.partial' is in the way.*rename it"):
        write(tmp_path / "out")

    assert names_in(tmp_path) == before and mine.is_symlink() == (kind == "a link")


def test_two_commands_do_not_write_one_folder_at_once(tmp_path):
    with whole_folder(tmp_path / "out") as partial:
        (partial / "file").write_text("first")
        with pytest.raises(OutputError, match=r"another command is writing '.*out' now"):
            write(tmp_path / "out", "second")

    assert (tmp_path / "out" / "file").read_text() == "first"
    assert names_in(tmp_path) == ["out", "out/file"]


def test_where_nothing_can_be_locked_a_left_folder_is_shown_and_not_removed(tmp_path, monkeypatch):
    def no_locks(file: int, what: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    write(tmp_path / "new")
    killed(tmp_path / "out")

    with pytest.raises(OutputError, match=r"if none is, remove '.*out\.partial'"):
        write(tmp_path / "out")

    assert (tmp_path / "new" / "file").read_text() == "new"
    assert names_in(tmp_path / "out.partial") == [LOCK, "folder", "old"]


@pytest.mark.parametrize("moment", ["before a file is written", "before the name is given"])
def test_a_partial_folder_that_somebody_removes_is_one_line_and_leaves_nothing(tmp_path, moment):
    def work() -> None:
        with whole_folder(tmp_path / "out") as partial:
            (partial / "one").write_text("new")
            shutil.rmtree(partial)
            if moment == "before a file is written":
                (partial / "two").write_text("new")

    with pytest.raises(OutputError, match=r"out' was removed in the meantime; run the command again"):
        work()
    assert names_in(tmp_path) == []


def test_a_part_that_somebody_removes_is_one_line(tmp_path):
    def work() -> None:
        with whole_folder(tmp_path / "out") as partial:
            (partial / "folder" / "file").write_text("new")

    with pytest.raises(OutputError, match=r"out' was removed in the meantime"):
        work()
    assert names_in(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a tree in which not even root can make a folder")
def test_a_place_where_nothing_can_be_made_is_one_line():
    with pytest.raises(OutputError, match=r"the output '/proc/new/out' cannot be created"):
        write(Path("/proc/new/out"))


def test_a_folder_that_somebody_makes_meanwhile_stays(tmp_path):
    with pytest.raises(OutputError, match="created by another process in the meantime"), whole_folder(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "file").write_text("theirs")

    assert names_in(tmp_path) == ["out", "out/file"]
    assert (tmp_path / "out" / "file").read_text() == "theirs"


def test_files_and_folders_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    events: list[tuple[str, int]] = []
    fsync, rename = os.fsync, Path.replace

    def record_fsync(number: int) -> None:
        fsync(number)
        events.append(("on disk", os.fstat(number).st_ino))

    def record_rename(path: Path, target: Path) -> Path:
        events.append(("named", path.stat().st_ino))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_rename)
    with whole_folder(tmp_path / "new" / "out") as partial:
        (partial / "folder").mkdir()
        for name in ("one", "folder/two"):
            (partial / name).write_text("new")

    out = tmp_path / "new" / "out"
    named = events.index(("named", out.stat().st_ino))
    inside = {out.stat().st_ino, *(path.stat().st_ino for path in out.rglob("*"))}
    assert len(inside) == 4 and inside <= {number for what, number in events[:named] if what == "on disk"}
    above = {out.parent.stat().st_ino, tmp_path.stat().st_ino}
    assert above <= {number for what, number in events[named:] if what == "on disk"}


def on_small_disk(options: str, disk: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command that alone sees a small disk in memory, mounted on `disk`; it goes with the command."""
    disk.mkdir()
    enter = ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)), "sh", "-c"]
    mount = f'mount -t tmpfs -o {options} tmpfs "$0"'
    if shutil.which("unshare") is None or subprocess.run([*enter, mount, disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk in memory (unshare and mount)")
    script = f'{mount} && cd "$0" && "$@"; status=$?; ls -A >&2; exit $status'
    return subprocess.run([*enter, script, disk, *command], capture_output=True, text=True, check=False)


FILL = """
import sys
from pathlib import Path
from depthprune.errors import OutputError
from depthprune.output import whole_folder
try:
    with whole_folder(Path("new/out"), num_bytes={}) as partial:
        {}
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "work",
    [
        '(partial / "file").write_bytes(bytes(3_000_000))',
        'import numpy, safetensors.numpy as n; n.save_file({"a": numpy.zeros(3_000_000)}, partial / "file")',
    ],
    ids=["bytes", "safetensors"],
)
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(tmp_path, work):
    done = on_small_disk("size=2m", tmp_path / "disk", sys.executable, "-c", FILL.format(1, work))

    assert done.stdout == "no space left for 'new/out'; free some or choose another --output\n", done.stderr
    assert done.stderr == ""


WRITE = """
from pathlib import Path
from depthprune.output import whole_folder
with whole_folder(Path("out"), num_bytes=8_000_000) as partial:
    (partial / "new").write_bytes(bytes(8_000_000))
"""


def test_room_is_asked_for_when_the_leftovers_are_gone(tmp_path):
    both = '"$0" -c "$1" out; ls -A && "$0" -c "$2"'

    done = on_small_disk("size=10m", tmp_path / "disk", "sh", "-c", both, sys.executable, KILLED, WRITE)

    assert (done.returncode, done.stdout) == (0, "out.partial\n"), done.stderr
    assert done.stderr.splitlines()[-1] == "out"


def test_a_disk_that_is_too_small_is_seen_before_anything_is_written(tmp_path):
    done = on_small_disk(
        "size=2m", tmp_path / "disk", sys.executable, "-c", FILL.format(3_000_000, "sys.exit('begun')")
    )

    assert done.stdout.startswith("no space left for 'new/out': the checkpoint takes 3 MB and 2 MB are free;"), done
    assert done.stderr == ""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "bert", num_layers=6)


DROP = ("--strategy", "top", "--count", "2", "--output", "out")


@pytest.mark.parametrize(
    "options, message",
    [("size=16k", "the checkpoint takes"), ("size=100m,nr_inodes=4", "no space left for 'out'; free some")],
    ids=["seen before", "seen while writing"],
)
def test_a_drop_to_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, model, options, message):
    command = (sys.executable, "-m", "depthprune.cli.main", "drop", model, *DROP)

    done = on_small_disk(options, tmp_path / "disk", *command)

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_file_that_may_not_grow_further_is_one_line_and_leaves_nothing(tmp_path, model):
    command = [sys.executable, "-m", "depthprune.cli.main", "drop", model, *DROP]

    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "larger than its disk or 'ulimit -f' allows" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert names_in(tmp_path) == []
