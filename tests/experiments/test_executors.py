"""Executors: every item comes back once, and a worker that dies loses nothing."""

import contextlib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import executor_functions
from depthprune.errors import UserError
from depthprune.experiments.executors.base import Resources, registry
from executor_functions import die_always, die_once, square

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


@pytest.mark.parametrize("name", EXECUTORS)
def test_a_worker_that_is_killed_loses_nothing(name, tmp_path):
    items = [str(tmp_path / f"{i}") for i in range(4)]
    outcomes = list(registry.get(name)(die_once, items, Resources(workers=2, cpus=1)))
    assert sorted(outcome.item for outcome in outcomes) == items
    assert {outcome.result for outcome in outcomes} == {"done"}
    assert len(list(tmp_path.iterdir())) == 4, "each item killed its worker once"


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


def test_workers_end_when_what_started_them_is_killed(tmp_path):
    code = (
        "from depthprune.experiments.executors.base import Resources, registry\n"
        "from executor_functions import note_and_wait\n"
        "if __name__ == '__main__':\n"
        f"    items = [{str(tmp_path / 'a')!r}, {str(tmp_path / 'b')!r}]\n"
        "    list(registry.get('local')(note_and_wait, items, Resources(workers=2, cpus=1)))\n"
    )
    script = tmp_path / "start.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)])
    workers = [wait_for(lambda name=name: (tmp_path / name).read_text()) for name in "ab"]
    parent.kill()
    parent.wait()
    for worker in workers:
        assert wait_for(lambda worker=worker: "gone" if ended(int(worker)) else ""), "a worker outlived the sweep"


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
