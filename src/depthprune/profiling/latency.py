"""The latency of a model, alone or compared with another one.

Two models are timed on the same batch, one right after the other and taking turns at being first: other load on the
machine affects both, and the ratio of the two times is stable. If one model is timed completely before the other, equal
models seem 1.1 to 1.7 times as fast as each other.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MIN_BATCHES = 6  # batches; six is the smallest number of ratios whose range is a 95 % interval of their median
MAX_BATCHES = 60
MAX_SECONDS = 12.0  # batches for two models; a busy machine needs them
ALONE_SECONDS = 3.0
WIDE = 0.04  # of the ratio: with a wider interval, more batches are timed
OUTSIDE = 0.05  # share of the intervals that miss the median

Step = Callable[[int], object]


@dataclass(frozen=True)
class Speedup:
    """How many times as fast one model is as another.

    Args:
        value: the median of the ratios of times, of one batch each.
        low, high: a 95 % interval of that median, from the order of the ratios alone.
        batches: how many were timed.
    """

    value: float
    low: float
    high: float
    batches: int


@dataclass(frozen=True)
class Timing:
    """The timing of two models.

    Args:
        first_ms, second_ms: milliseconds per example.
        speedup: of the second over the first.
    """

    first_ms: float
    second_ms: float
    speedup: Speedup


def latency_ms(model: "PreTrainedModel", batches: list[dict[str, Any]]) -> float:
    """Time the forward pass, in the dtype of the weights.

    Args:
        model: runs where its weights are.
        batches: padded inputs, passed as keyword arguments.

    Returns:
        Milliseconds per example: the median over the batches, after a warm-up pass.
    """
    with _Ready(model, batches) as step:
        step(0)
        times: list[list[float]] = [[] for _ in batches]
        begun = time.perf_counter()
        for i in range(MAX_BATCHES):
            if i >= MIN_BATCHES and time.perf_counter() - begun > ALONE_SECONDS:
                break
            times[i % len(batches)].append(timed(step, i % len(batches)))
    return _per_example(times, batches)


def compare_latency(first: "PreTrainedModel", second: "PreTrainedModel", batches: list[dict[str, Any]]) -> Timing:
    """Time two models in turns on the same batches.

    Args:
        first: the reference, such as the full model.
        second: the other.
        batches: padded inputs, passed as keyword arguments.
    """
    with _Ready(first, batches) as one, _Ready(second, batches) as other:
        one(0)  # kernels and allocator warm up
        other(0)
        times, speedup = in_turns(one, other, len(batches))
    return Timing(_per_example(times[0], batches), _per_example(times[1], batches), speedup)


def in_turns(
    first: Step, second: Step, num_batches: int, *, clock: Callable[[], float] = time.perf_counter
) -> tuple[tuple[list[list[float]], ...], Speedup]:
    """Time two functions of a batch index in turns, with more batches while the ratio is uncertain.

    Returns:
        The times of each function per batch, and the speed-up of the second over the first.
    """
    times: tuple[list[list[float]], ...] = tuple([[] for _ in range(num_batches)] for _ in range(2))
    ratios: list[float] = []
    begun = clock()
    while True:
        batch = len(ratios) % num_batches
        # The order alternates, so that a machine that gets slower or faster favours neither.
        order = (0, 1) if len(ratios) % 2 == 0 else (1, 0)
        for which in order:
            times[which][batch].append(timed((first, second)[which], batch, clock))
        ratios.append(times[0][batch][-1] / times[1][batch][-1])
        if len(ratios) % 2 or len(ratios) < MIN_BATCHES:
            continue
        low, high = median_interval(ratios)
        value = statistics.median(ratios)
        if high - low <= WIDE * value or len(ratios) >= MAX_BATCHES or clock() - begun > MAX_SECONDS:
            return times, Speedup(value, low, high, len(ratios))


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return a distribution-free 95 % interval of the median.

    >>> median_interval([6, 1, 2, 3, 4, 5])
    (1, 6)
    >>> median_interval(range(20))
    (5, 14)
    """
    ordered, number = sorted(values), len(values)
    below, outside = 0, 0.0
    while below < number // 2 and (outside := outside + math.comb(number, below) / 2**number) <= OUTSIDE / 2:
        below += 1
    cut = max(below - 1, 0)
    return ordered[cut], ordered[number - 1 - cut]


def timed(step: Step, batch: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds that a step takes."""
    started = clock()
    step(batch)
    return clock() - started


def _per_example(times: list[list[float]], batches: list[dict[str, Any]]) -> float:
    seen = [
        (statistics.median(some), len(batch["input_ids"])) for some, batch in zip(times, batches, strict=True) if some
    ]
    return sum(seconds for seconds, _ in seen) / sum(size for _, size in seen) * 1000


class _Ready:
    """A model as a function of a batch index, in evaluation mode and without gradients while the context lasts."""

    def __init__(self, model: "PreTrainedModel", batches: list[dict[str, Any]]):
        self._model, self._batches = model, batches
        self._was_training = model.training

    def __enter__(self) -> Step:
        self._model.eval()
        return self._step

    def __exit__(self, *_: object) -> None:
        self._model.train(self._was_training)

    def _step(self, batch: int) -> None:
        import torch

        with torch.inference_mode():
            self._model(**self._batches[batch])
        if self._model.device.type == "cuda":
            torch.cuda.synchronize()
