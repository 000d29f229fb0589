"""Ctrl-C: the first ends a command in good order, the second at once; real processes, in groups of their own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from depthprune.cli.stopping import stoppable
from depthprune.experiments.store.leases import progress_line, running

LONG = """
import hashlib, time
from depthprune.cli.stopping import stoppable
with stoppable() as stopped:
    print("ready", flush=True)
    try:
        {body}
    except KeyboardInterrupt:
        print("put away", stopped.code, flush=True)
        {then}
"""
DEAF = "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)"  # no handler of Python's runs meanwhile


def start(*command: object) -> subprocess.Popen:
    """Start a process group, as a terminal does: one that heeds Ctrl-C, whatever started the tests.

    An ignored signal is inherited, and a job in the background of a shell ignores Ctrl-C.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    return process


def ends_within(process: subprocess.Popen, seconds: float) -> tuple[str, str]:
    """Return what a process still says, which is to end in time."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"it goes on after {seconds} s: {process.communicate()}")


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_an_interrupt_and_its_number_is_kept(number, code, capsys):
    given = signal.signal(number, signal.default_int_handler)  # under nohup it is ignored, and stays so
    with stoppable() as stopped:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert stopped.code == code
    assert signal.signal(number, given) is signal.default_int_handler


@pytest.mark.parametrize("body, then", [(DEAF, "pass"), ("time.sleep(60)", DEAF)])
def test_the_second_ends_a_process_at_once_whatever_it_does(body, then):
    process = start("-c", LONG.format(body=body, then=then))
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.5)  # from the line that says so into what is to be interrupted
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None, "else the second one has nothing to end"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = ends_within(process, 3)
    assert process.returncode == 130
    assert errors == "depthprune: stopping; once more ends it at once\n"


def test_an_interrupted_sweep_ends_within_seconds_and_says_how_to_go_on(bert, rows_csv, tmp_path):
    content = {
        "models": [str(bert)], "tasks": ["custom"], "dataset": str(rows_csv), "text_columns": ["text"],
        "label_column": "kind", "strategies": ["top"], "counts": [1], "heal": {"num_epochs": 100_000}, "max_length": 8,
    }  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps(content))
    store = tmp_path / "runs"
    command = ["sweep", str(tmp_path / "s.yaml"), "--store", str(store), "--workers", "2", "--device", "cpu"]
    process = start("-m", "depthprune", *command)
    leases: list[str] = []
    deadline = time.monotonic() + 90
    while len(leases) < 2 and time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            found = [running(folder) or {} for folder in store.iterdir()]
            leases = [line for lease in found if (line := progress_line(lease)).startswith("train")]
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    assert len(leases) == 2, ends_within(process, 30)
    began = time.monotonic()
    _, errors = ends_within(process, 30)
    assert time.monotonic() - began < 20, "it was to end within seconds"
    assert process.returncode == 130
    last = "interrupted; what is done is kept, and the same command resumes it: depthprune "
    assert errors.splitlines()[-1] == f"depthprune: {last}{' '.join(command)}"
    assert "0 of 2 runs are done" in errors
    assert "Traceback" not in errors and "leaked" not in errors
    left = {folder.name for folder in store.iterdir()}
    assert left <= {"sweeps", "measured"}, "a run that was stopped leaves nothing but what was measured for others"
