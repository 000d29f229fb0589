"""The command, killed at random moments: its output is absent or whole, and the next command does its work.

The default test kills a few times; fifty kills, each followed by a command that must succeed, are

    python -m pytest tests/checkpoints/test_kill.py -m slow --log-cli-level=INFO
"""

import hashlib
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from transformers import AutoModel, BertModel

from depthprune.checkpoints.layout import read_checkpoint
from tiny_models import ARCHITECTURES, build

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Moments are counted from these events: most of a run is the imports of its two processes, and few moments of the
# whole would fall on the copy and the rename.
EVENTS = ("start", "folder", "configuration")
GRACE = 60  # seconds in which a child must have seen that its parent is gone; it may be in the middle of an import

MARK = f"DEPTHPRUNE_TEST_{uuid.uuid4().hex}"  # in the environment of every process that is started here
log = logging.getLogger(__name__)


@dataclass
class Setting:
    """A checkpoint of 150 MB in several files, and what dropping two of its layers writes.

    Args:
        folder: where everything lies.
        expected: file name → hash, of a run that nobody disturbed.
        seconds: event → time from it to the end of that run.
    """

    folder: Path
    expected: dict[str, str]
    seconds: dict[str, float]

    @property
    def out(self) -> Path:
        return self.folder / "out"


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("kill")
    config = ARCHITECTURES["bert"].make_config(4, hidden_size=512, intermediate_size=8192)
    build(BertModel, config).save_pretrained(folder / "model", max_shard_size="40MB")
    sizes = {tensor.file: tensor.num_bytes for tensor in read_checkpoint(folder / "model").tensors.values()}
    assert len(sizes) > 2
    made = Setting(folder, {}, {})
    child = start(made)
    times = {event: await_event(made, child, event) for event in EVENTS}
    assert child.wait(timeout=300) == 0
    made.seconds = {event: time.monotonic() - at for event, at in times.items()}
    made.expected = hashes(made.out)
    assert AutoModel.from_pretrained(made.out).config.num_hidden_layers == 2
    shutil.rmtree(made.out)
    yield made
    shutil.rmtree(folder)  # pytest would keep the checkpoints of three sessions


def start(setting: Setting) -> subprocess.Popen[bytes]:
    (setting.folder / "tmp").mkdir(exist_ok=True)
    command = ["drop", setting.folder / "model", "--strategy", "top", "--count", "2", "--output", setting.out]
    with (setting.folder / "said").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "depthprune.cli.main", *command],
            stdout=said,
            stderr=said,
            env={**os.environ, "TMPDIR": str(setting.folder / "tmp"), MARK: setting.folder.name},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )


def await_event(setting: Setting, child: subprocess.Popen[bytes], event: str) -> float:
    """Wait until the run has come so far, or is over, and return when that was; what was left before does not count."""
    partial = setting.out.with_name("out.partial")
    left = {path: path.stat().st_mtime_ns for path in (partial, partial / "config.json") if path.exists()}

    def new(path: Path) -> bool:
        try:
            return path.stat().st_mtime_ns != left.get(path)
        except FileNotFoundError:
            return False

    while child.poll() is None:
        if event == "start" or new(partial if event == "folder" else partial / "config.json"):
            break
        time.sleep(0.001)
    return time.monotonic()


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def survivors() -> list[psutil.Process]:
    """Return the processes of the runs that still live, children that lost their parent among them."""
    found = []
    for process in psutil.process_iter():
        try:
            if MARK in process.environ() and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def kill_once(setting: Setting, number: int, chance: random.Random) -> str:
    """Kill a run at a random moment and check what it leaves; return what that was."""
    event = EVENTS[number % len(EVENTS)]
    which = SIGNALS[number // len(EVENTS) % len(SIGNALS)]
    delay = chance.uniform(0, setting.seconds[event])
    child = start(setting)
    await_event(setting, child, event)
    time.sleep(delay)
    child.send_signal(which)
    status = child.wait(timeout=60)
    died = time.monotonic()
    partial = setting.out.with_name("out.partial").exists()
    said = (setting.folder / "said").read_text()
    about = f"kill {number}: {which.name}, {delay:.3f} s after {event}, status {status}: {said[-500:]}"
    assert status != 2, f"a run was refused: {about}"
    if which is signal.SIGINT and event == "folder" and delay < setting.seconds["folder"] / 2:
        assert status != 0, f"the signal was not heeded: {about}"
    if which is not signal.SIGKILL and event != "start":
        assert not partial, f"what was begun is not removed: {about}"
    if setting.out.exists():
        assert hashes(setting.out) == setting.expected, about
        outcome = "whole"
    else:
        assert status != 0, about
        outcome = "absent, a partial folder left" if partial else "absent"
    while survivors() and time.monotonic() < died + GRACE:
        time.sleep(0.05)
    assert not survivors(), f"processes survive: {about}"
    log.info(
        "%s after %s at %.3f s: %s; children gone after %.2f s",
        which.name,
        event,
        delay,
        outcome,
        time.monotonic() - died,
    )
    if setting.out.exists():
        shutil.rmtree(setting.out)
    return outcome


def check_next_run(setting: Setting) -> None:
    """Run the command to its end, over whatever the killed ones left."""
    status = start(setting).wait(timeout=300)
    assert status == 0, (setting.folder / "said").read_text()
    assert hashes(setting.out) == setting.expected
    assert not setting.out.with_name("out.partial").exists()
    shutil.rmtree(setting.out)


def test_a_killed_command_leaves_nothing_that_looks_finished_and_the_next_one_succeeds(setting):
    chance = random.Random(0)

    outcomes = Counter(kill_once(setting, number, chance) for number in (1, 5, 6, 2))

    log.info("%s", dict(outcomes))
    assert outcomes.total() == 4 and outcomes["whole"] < 4
    check_next_run(setting)


@pytest.mark.slow
def test_fifty_kills_at_random_moments_leave_nothing_half_done(setting):
    chance = random.Random(1)
    outcomes: Counter[str] = Counter()

    for number in range(50):
        outcomes[kill_once(setting, number, chance)] += 1
        check_next_run(setting)

    log.info("%s", dict(outcomes))
    assert outcomes.total() == 50 and len(outcomes) > 1
