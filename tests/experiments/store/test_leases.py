"""Leases on runs: one owner at a time, and a dead one's run is taken up."""

import contextlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from depthprune.experiments.store.leases import LEASE_FILE, Watch, leased, owner_line, progress_line, running


def test_a_run_has_one_owner_and_the_lease_goes_with_it(tmp_path):
    folder = tmp_path / "run"
    with leased(folder, Watch()) as first:
        with leased(folder, Watch()) as second:
            assert first and not second
        assert running(folder)["pid"] == os.getpid(), "who did not get it does not take it away"
    assert running(folder) is None


def _hold(folder, ready):
    with leased(folder, Watch()) as ours:
        assert ours
        ready.set()
        time.sleep(60)


def test_the_lease_of_a_killed_process_is_taken_up_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    with leased(tmp_path, Watch()) as ours:
        assert not ours
    process.kill()
    process.join()
    with leased(tmp_path, Watch()) as ours:
        assert ours


def _lease_of_another_machine(folder, beat=0):
    content = {"owner": "somebody", "beat": beat, "host": "elsewhere", "pid": 1, "start": None}
    (folder / LEASE_FILE).write_text(json.dumps(content))


def test_another_machine_is_dead_when_its_heart_stops_whatever_the_clocks_say(tmp_path):
    watch = Watch(dead_after=0.2)
    _lease_of_another_machine(tmp_path)
    os.utime(tmp_path / LEASE_FILE, (0, 0))  # its clock is in 1970
    assert not watch.is_dead(tmp_path), "seen once is not seen still"
    time.sleep(0.3)
    _lease_of_another_machine(tmp_path, beat=1)
    assert not watch.is_dead(tmp_path)
    time.sleep(0.3)
    assert watch.is_dead(tmp_path)
    with leased(tmp_path, watch) as ours:
        assert ours


def test_an_owner_beats_and_stops_when_its_lease_was_taken_up(tmp_path):
    with leased(tmp_path, Watch(), heartbeat=0.05):
        time.sleep(0.3)
        assert running(tmp_path)["beat"] >= 2
        _lease_of_another_machine(tmp_path)
        time.sleep(0.2)
        assert running(tmp_path)["owner"] == "somebody"
    assert running(tmp_path)["owner"] == "somebody", "a lease that is not ours is left alone"


def _try(folder, results):
    with leased(folder, Watch()) as ours:
        if ours:
            time.sleep(0.5)
        results.put(ours)


def test_of_many_who_try_at_once_one_gets_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_try, args=(tmp_path, results)) for _ in range(4)]
    with leased(tmp_path, Watch()):
        for process in processes:
            process.start()
        got = [results.get(timeout=60) for _ in processes]
    assert got == [False] * 4
    for process in processes:
        process.join()


class WhileOtherTakesIt(Watch):
    """Judges a lease, and is overtaken by another worker between the look and what follows from it."""

    def __init__(self, other):
        super().__init__()
        self._other, self.got = other, None

    def is_dead(self, folder):
        verdict = super().is_dead(folder)
        if verdict and self.got is None:
            self.got = self._other.enter_context(leased(folder, Watch()))
        return verdict


def _lease_of_a_dead_process(folder):
    content = {"owner": "gone", "beat": 3, "host": socket.gethostname(), "pid": 2**22 + 1, "start": "1 x"}
    (folder / LEASE_FILE).write_text(json.dumps(content))


def test_of_two_who_see_the_same_death_one_gets_the_run(tmp_path):
    _lease_of_a_dead_process(tmp_path)
    with contextlib.ExitStack() as other:
        watch = WhileOtherTakesIt(other)
        with leased(tmp_path, watch) as ours:
            assert watch.got and not ours
            owner = running(tmp_path)["owner"]
        assert owner != "gone" and running(tmp_path)["owner"] == owner, "the winner's lease is left alone"
    assert os.listdir(tmp_path) == [], "the dead one's lease goes with the winner's"


def test_who_comes_late_to_a_death_lets_go_where_a_third_has_begun(tmp_path):
    _lease_of_a_dead_process(tmp_path)
    with contextlib.ExitStack() as third:

        class Late(Watch):
            def is_dead(self, folder):
                verdict = super().is_dead(folder)
                with leased(folder, Watch()) as winner:
                    assert winner
                assert third.enter_context(leased(folder, Watch())), "the winner is gone, and the run is free"
                return verdict

        with leased(tmp_path, Late()) as ours:
            assert not ours
        assert running(tmp_path)["pid"] == os.getpid()
    assert running(tmp_path) is None


def test_the_lease_says_how_far_the_run_is(tmp_path):
    progress: dict[str, object] = {}
    with leased(tmp_path, Watch(), heartbeat=0.05, progress=progress):
        progress.update(stage="train", done=5, total=8)
        time.sleep(0.3)
        assert progress_line(running(tmp_path)) == "train 5/8"
        assert owner_line(running(tmp_path)) == f"process {os.getpid()}"


def test_a_process_that_ended_and_was_not_counted_yet_is_dead(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    while "\nState:\tZ" not in Path(f"/proc/{ended.pid}/status").read_text():
        time.sleep(0.02)
    content = {"owner": "it", "beat": 0, "host": socket.gethostname(), "pid": ended.pid, "start": "1 x"}
    fields = Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (tmp_path / LEASE_FILE).write_text(json.dumps({**content, "start": f"{fields[19]} {boot}"}))
    assert Watch().is_dead(tmp_path)
    ended.wait()
