"""Sizes against what is written to disk; two models timed in turns, on a clock that is made up."""

import random
import statistics

import pytest
import torch

from depthprune.profiling.footprint import num_parameters, weight_bytes
from depthprune.profiling.latency import MAX_BATCHES, compare_latency, in_turns, latency_ms, median_interval, timed
from tiny_models import tiny_model


def test_weight_bytes_are_what_the_file_takes(tmp_path):
    for head in ("base", "mlm"):
        model = tiny_model("bert", head)
        model.save_pretrained(tmp_path / head)
        written = (tmp_path / head / "model.safetensors").stat().st_size

        assert 0 < written - weight_bytes(model) < 20_000, "the header alone may come on top"


def test_tied_weights_count_once():
    model = tiny_model("bert", "mlm")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight

    untied = sum(tensor.numel() for tensor in model.state_dict().values())

    assert num_parameters(model) < untied


def test_latency_is_positive_and_leaves_the_mode():
    model = tiny_model("bert").train()
    batch = {"input_ids": torch.ones(2, 4, dtype=torch.long)}

    assert latency_ms(model, [batch]) > 0
    assert model.training


class BusyMachine:
    """A machine whose clock runs by what is asked of it, slower and slower, and with hiccups.

    Args:
        slower: how much longer everything takes after each second of work.
        noise: standard deviation of a step's time, as a share of it.
    """

    def __init__(self, slower: float, noise: float = 0.05):
        self.now, self._slower, self._noise, self._random = 0.0, slower, noise, random.Random(5)

    def clock(self) -> float:
        return self.now

    def step(self, seconds: float):
        def act(batch: int) -> None:
            busy = 1 + self._slower * self.now
            self.now += seconds * (1 + batch) * busy * max(0.5, self._random.gauss(1, self._noise))

        return act


def one_after_the_other(machine: BusyMachine, first, second) -> float:
    """Return the ratio that timing one model and then the other gives."""
    times = [[timed(step, batch, machine.clock) for _ in range(5) for batch in range(4)] for step in (first, second)]
    return statistics.median(times[0]) / statistics.median(times[1])


@pytest.mark.parametrize("slower", [0.0, 0.3, 2.0])
def test_a_model_is_as_fast_as_itself_however_busy_the_machine_gets(slower):
    machine = BusyMachine(slower)
    _, speedup = in_turns(machine.step(0.01), machine.step(0.01), 4, clock=machine.clock)

    assert speedup.low <= 1.0 <= speedup.high
    assert abs(speedup.value - 1) < 0.03
    if slower:
        machine = BusyMachine(slower)
        assert one_after_the_other(machine, machine.step(0.01), machine.step(0.01)) < 0.93, "there is something to mend"


def test_what_is_faster_reads_faster_by_as_much():
    machine = BusyMachine(1.0)
    times, speedup = in_turns(machine.step(0.03), machine.step(0.02), 4, clock=machine.clock)

    assert speedup.low <= 1.5 <= speedup.high and speedup.low > 1.3
    assert [len(some) for some in times] == [4, 4]


def test_more_batches_are_timed_while_the_ratio_is_uncertain():
    calm, nervous = (BusyMachine(0.0, noise) for noise in (0.001, 0.5))
    few, many = (in_turns(m.step(0.001), m.step(0.001), 4, clock=m.clock)[1].batches for m in (calm, nervous))

    assert few == 6 and many == MAX_BATCHES


def test_the_interval_holds_the_median_in_nineteen_of_twenty_cases():
    draw = random.Random(3)
    inside = 0
    for _ in range(2000):
        low, high = median_interval([draw.expovariate(1) for _ in range(20)])
        inside += low <= 0.6931 <= high

    assert 0.94 < inside / 2000 < 0.98


def test_two_models_are_timed_beside_each_other_and_left_as_they_were():
    full, cut = tiny_model("bert", depth=6).train(), tiny_model("bert", depth=1).eval()
    batch = {"input_ids": torch.ones(4, 8, dtype=torch.long)}
    timing = compare_latency(full, cut, [batch, batch])

    assert timing.first_ms > 0 and timing.second_ms > 0
    assert timing.speedup.low <= timing.speedup.value <= timing.speedup.high
    assert full.training and not cut.training
