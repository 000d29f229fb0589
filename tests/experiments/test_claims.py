"""Claims on runs: one owner at a time, and a dead one's run is taken up."""

import json
import multiprocessing
import os
import time

from depthprune.experiments.claims import CLAIM_FILE, Watch, claimed, running


def test_a_run_has_one_owner_and_the_claim_goes_with_it(tmp_path):
    folder = tmp_path / "run"
    with claimed(folder, Watch()) as first:
        with claimed(folder, Watch()) as second:
            assert first and not second
        assert running(folder)["pid"] == os.getpid(), "who did not get it does not take it away"
    assert running(folder) is None


def _hold(folder, ready):
    with claimed(folder, Watch()) as ours:
        assert ours
        ready.set()
        time.sleep(60)


def test_the_claim_of_a_killed_process_is_taken_up_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    with claimed(tmp_path, Watch()) as ours:
        assert not ours
    process.kill()
    process.join()
    with claimed(tmp_path, Watch()) as ours:
        assert ours


def _claim_of_another_machine(folder, beat=0):
    content = {"owner": "somebody", "beat": beat, "host": "elsewhere", "pid": 1, "start": None}
    (folder / CLAIM_FILE).write_text(json.dumps(content))


def test_another_machine_is_dead_when_its_heart_stops_whatever_the_clocks_say(tmp_path):
    watch = Watch(dead_after=0.2)
    _claim_of_another_machine(tmp_path)
    os.utime(tmp_path / CLAIM_FILE, (0, 0))  # its clock is in 1970
    assert not watch.is_dead(tmp_path), "seen once is not seen still"
    time.sleep(0.3)
    _claim_of_another_machine(tmp_path, beat=1)
    assert not watch.is_dead(tmp_path)
    time.sleep(0.3)
    assert watch.is_dead(tmp_path)
    with claimed(tmp_path, watch) as ours:
        assert ours


def test_an_owner_beats_and_stops_when_its_claim_was_taken_up(tmp_path):
    with claimed(tmp_path, Watch(), heartbeat=0.05):
        time.sleep(0.3)
        assert running(tmp_path)["beat"] >= 2
        _claim_of_another_machine(tmp_path)
        time.sleep(0.2)
        assert running(tmp_path)["owner"] == "somebody"
    assert running(tmp_path)["owner"] == "somebody", "a claim that is not ours is left alone"


def _try(folder, results):
    with claimed(folder, Watch()) as ours:
        if ours:
            time.sleep(0.5)
        results.put(ours)


def test_of_many_who_try_at_once_one_gets_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_try, args=(tmp_path, results)) for _ in range(4)]
    with claimed(tmp_path, Watch()):
        for process in processes:
            process.start()
        got = [results.get(timeout=60) for _ in processes]
    assert got == [False] * 4
    for process in processes:
        process.join()
