"""Executors: every item comes back once, and a worker that dies loses nothing."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import executor_functions
from depthprune.errors import UserError
from depthprune.experiments.sweeps.executors.base import Resources, registry
from depthprune.experiments.sweeps.executors.local import at_a_time
from executor_functions import die_always, die_once, square, visible_gpus

EXECUTORS = registry.names()


@pytest.fixture(autouse=True)
def functions_are_found(monkeypatch):
    """Ray's workers are started by its daemons, and find the functions by name."""
    monkeypatch.setenv("PYTHONPATH", str(Path(executor_functions.__file__).parent))


def test_the_executors_are_local_processes_and_ray():
    assert EXECUTORS == ["local", "ray"]


SOME = ["local", pytest.param("ray", marks=pytest.mark.slow)]  # starting a Ray takes a quarter of a minute


@pytest.mark.parametrize("name", SOME)
def test_every_item_comes_back_once_and_threads_are_told(name):
    outcomes = list(registry.get(name)(square, range(6), Resources(workers=2, cpus=1)))
    assert sorted(outcome.item for outcome in outcomes) == list(range(6))
    assert all(outcome.result == (outcome.item**2, 1) for outcome in outcomes)


def test_workers_of_this_machine_share_its_gpus_one_each(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    outcomes = list(registry.get("local")(visible_gpus, range(4), Resources(cpus=1, gpus=1)))
    seen = dict(outcome.result for outcome in outcomes)
    assert len(outcomes) == 4 and len(seen) <= 2
    assert set(seen.values()) <= {"3", "5"} and len(set(seen.values())) == len(seen)


def test_workers_share_a_gpu_where_a_run_needs_a_part_of_it(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [at_a_time(Resources(gpus=part)) for part in (1, 0.5, 1 / 3, 0.1)] == [2, 4, 6, 20]
    outcomes = list(registry.get("local")(visible_gpus, range(8), Resources(cpus=1, gpus=0.5)))
    seen = dict(outcome.result for outcome in outcomes)
    assert len(outcomes) == 8 and 2 < len(seen) <= 4
    assert sorted(seen.values()) in (["3", "3", "5", "5"], ["3", "3", "5"], ["3", "5", "5"])


@pytest.mark.parametrize("name", EXECUTORS)
def test_a_worker_that_is_killed_loses_nothing(name, tmp_path):
    items = [str(tmp_path / f"{i}") for i in range(4 if name == "local" else 2)]  # Ray takes seconds for each worker
    outcomes = list(registry.get(name)(die_once, items, Resources(workers=2, cpus=1)))
    assert sorted(outcome.item for outcome in outcomes) == items
    assert {outcome.result for outcome in outcomes} == {"done"}
    assert len(list(tmp_path.iterdir())) == len(items), "each item killed its worker once"


@pytest.mark.parametrize("name", SOME)
def test_an_item_that_kills_each_worker_is_given_up_and_the_others_are_done(name):
    outcomes = list(registry.get(name)(die_always, ["", "kill", "", ""], Resources(workers=1, cpus=1)))
    assert sorted((outcome.item, outcome.result) for outcome in outcomes if outcome.lost is None) == [("", "done")] * 3
    (lost,) = [outcome for outcome in outcomes if outcome.lost is not None]
    assert lost.item == "kill"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_where_nobody_answers_is_one_line(address):
    with pytest.raises(UserError, match=f"no Ray answers at '{re.escape(address)}'"):
        list(registry.get("ray")(square, [1], Resources(address=address)))


def start(function: str, places: list[Path], tmp_path, executor="local") -> tuple[subprocess.Popen, list[int]]:
    """Start a process group that maps a function over places, as a terminal starts a command; returns its workers."""
    script = tmp_path / "start.py"
    script.write_text(
        "from depthprune.experiments.sweeps.executors.base import Resources, registry\n"
        f"from executor_functions import {function}\n"
        "if __name__ == '__main__':\n"
        f"    resources = Resources(workers={len(places)}, cpus=1)\n"
        f"    list(registry.get({executor!r})({function}, {[str(place) for place in places]!r}, resources))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], *sys.path])}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # one that is ignored would be inherited
    parent = subprocess.Popen(
        [sys.executable, str(script)], stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    signal.signal(signal.SIGINT, before)
    return parent, [int(wait_for(lambda place=place: place.read_text())) for place in places]


def all_ended(workers: list[int], seconds: float) -> bool:
    """Tell whether the processes end in time."""
    return bool(wait_for(lambda: "ended" if all(map(ended, workers)) else "", seconds))


def test_workers_end_when_what_started_them_is_killed(tmp_path):
    parent, workers = start("note_and_wait", [tmp_path / "a", tmp_path / "b"], tmp_path)
    parent.kill()
    parent.communicate()
    assert all_ended(workers, 30), "a worker outlived the sweep"


@pytest.mark.parametrize("name", SOME)
def test_an_interrupt_stops_running_items_within_seconds_and_lets_them_put_away_what_they_began(name, tmp_path):
    places = [tmp_path / "a", tmp_path / "b"]
    parent, workers = start("note_and_put_away", places, tmp_path, name)
    began = time.monotonic()
    os.killpg(parent.pid, signal.SIGINT)  # as Ctrl-C does, to all processes of the command
    errors = parent.communicate(timeout=30)[1]
    assert time.monotonic() - began < (12 if name == "local" else 25)
    assert errors.splitlines()[-1] == "KeyboardInterrupt" and errors.count("Traceback") == 1, errors
    assert "leaked" not in errors
    assert all_ended(workers, 5)
    assert [place.with_suffix(".away").exists() for place in places] == [True, True]


def test_a_second_interrupt_ends_items_at_once_that_heed_none(tmp_path):
    parent, workers = start("note_and_go_on", [tmp_path / "a", tmp_path / "b"], tmp_path)
    os.killpg(parent.pid, signal.SIGINT)
    time.sleep(1)
    assert parent.poll() is None and not any(map(ended, workers)), "else the second one has nothing to end"
    began = time.monotonic()
    os.killpg(parent.pid, signal.SIGINT)
    errors = parent.communicate(timeout=30)[1]
    assert time.monotonic() - began < 3
    assert "leaked" not in errors and all_ended(workers, 2)


def wait_for(look, seconds: float = 30.0) -> str:
    """Return what `look` returns once that is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if found := look():
                return found
        time.sleep(0.1)
    return ""


def ended(pid: int) -> bool:
    """Tell whether a process is no more, or only waits to be counted."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True
