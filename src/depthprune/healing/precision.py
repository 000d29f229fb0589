"""The faster training precision: float32, or bfloat16 autocast with weights in float32."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBED = ("float32", "bfloat16")
ROUNDS = 3  # the first also warms up kernels and allocator
LONG_ENOUGH = 20.0  # seconds, after which two rounds have to be enough
GAIN = 1.1  # bfloat16 has to be this much faster to be worth its rounding


@dataclass(frozen=True)
class Probe:
    """The result of a probe.

    Args:
        precision: the faster one.
        seconds: of a training step in each; empty if the hardware has only one.
    """

    precision: str
    seconds: dict[str, float]


def faster_precision(model: "PreTrainedModel", batch: dict[str, Any], loss: Callable[..., Any] | None = None) -> Probe:
    """Time a few training steps on `batch` in float32 and in bfloat16 autocast, and name the faster.

    Weights, gradients and the random state are unchanged. Processors without bfloat16 instructions are not
    probed: emulation is slower.

    Args:
        model: on its device.
        batch: padded; with labels unless there is a loss.
        loss: of the model and a batch; the model's own if None.
    """
    if model.device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return Probe("float32", {})
    if model.device.type == "cuda":
        return Probe("bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32", {})
    was_training = model.training
    model.train()
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    with torch.random.fork_rng(devices=[]):
        times = interleaved_minima([lambda name=name: _step(model, batch, name, loss) for name in PROBED])
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return faster(dict(zip(PROBED, times, strict=True)))


def faster(seconds: dict[str, float]) -> Probe:
    """Choose by the time per step.

    >>> faster({"float32": 1.05, "bfloat16": 1.0}).precision
    'float32'
    """
    gain = seconds["float32"] / seconds["bfloat16"]
    return Probe("bfloat16" if gain > GAIN else "float32", seconds)


def interleaved_minima(
    steps: Sequence[Callable[[], object]], *, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Time functions in turns, and return the shortest time of each, since other load only adds to it."""
    begun = clock()
    shortest = [float("inf")] * len(steps)
    for done in range(ROUNDS):
        if done >= 2 and clock() - begun > LONG_ENOUGH:
            break
        for i, step in enumerate(steps):
            started = clock()
            step()
            shortest[i] = min(shortest[i], clock() - started)
    return shortest


def _step(model: "PreTrainedModel", batch: dict[str, Any], precision: str, loss: Callable[..., Any] | None) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        value = model(**batch).loss if loss is None else loss(model, dict(batch))
    value.backward()
