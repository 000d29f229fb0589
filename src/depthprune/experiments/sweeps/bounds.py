"""What a model may lose or cost. No torch."""

from dataclasses import dataclass
from typing import Any

from depthprune.errors import UserError
from depthprune.evaluation.measurement import Measurement
from depthprune.experiments.store.records import measured, speedup_of


@dataclass(frozen=True)
class Bounds:
    """What the model may lose or cost; those that are None do not bind.

    Args:
        max_loss: by how much the primary metric may be worse than the full model's: a fraction of that with `relative`,
            else a difference; of a metric that is no fraction, a hundredth of it.
        relative: how `max_loss` is meant.
        max_parameters: of the model.
        max_latency_ms: of an example.
        speedup: times as fast as the full model.
    """

    max_loss: float | None = None
    relative: bool = False
    max_parameters: int | None = None
    max_latency_ms: float | None = None
    speedup: float | None = None

    def loses_too_much(self, record: dict[str, Any], full: Measurement) -> bool:
        """Tell whether a run is too much worse than the full model."""
        if self.max_loss is None:
            return False
        one = full.value if self.relative else 100 / full.scale
        return measured(record).lost(full) > self.max_loss * one + 1e-12

    def costs_too_much(self, record: dict[str, Any]) -> bool:
        """Tell whether a run's model is too large or too slow."""
        profile = record["outcome"]["profile"]
        latency, speedup = profile["latency_ms"], speedup_of(profile)  # None where nobody timed it
        return (
            (self.max_parameters is not None and profile["parameters"] > self.max_parameters)
            or (self.max_latency_ms is not None and (latency is None or latency > self.max_latency_ms))
            or (self.speedup is not None and (speedup is None or speedup < self.speedup))
        )

    def allow(self, record: dict[str, Any], full: Measurement) -> bool:
        """Tell whether a run is within every bound."""
        return not self.loses_too_much(record, full) and not self.costs_too_much(record)


def make_bounds(
    max_loss: float | str | None,
    max_parameters: float | str | None,
    max_latency_ms: float | None,
    speedup: float | None,
    *,
    timed: bool = True,
) -> Bounds:
    """Parse bounds as they are typed.

    >>> make_bounds("1%", "80M", None, None)
    Bounds(max_loss=0.01, relative=True, max_parameters=80000000, max_latency_ms=None, speedup=None)

    Args:
        timed: whether latencies are measured.

    Raises:
        UserError: there is none, one is out of range, or one is on a latency that is not measured.
    """
    if max_loss is max_parameters is max_latency_ms is speedup is None:
        raise UserError("say what the model may lose or cost: --max-loss 1.0, --max-parameters, --speedup, …")
    loss, relative = parse_loss(str(max_loss)) if max_loss is not None else (None, False)
    for flag, value in (("--max-latency-ms", max_latency_ms), ("--speedup", speedup)):
        if value is not None and (not isinstance(value, int | float) or not value > 0):
            raise UserError(f"{flag} {value} is out of range; give a number above 0")
        if value is not None and not timed:
            raise UserError(f"{flag} needs latencies, which --no-profile does not measure; leave one of them out")
    size = parse_number(str(max_parameters)) if max_parameters is not None else None
    return Bounds(loss, relative, size, max_latency_ms, speedup)


def parse_loss(text: str) -> tuple[float, bool]:
    """Read a bound on the loss: `1.0` is a point of a metric × 100, or one of a metric that is no fraction, such as
    perplexity; `1%` is a share of the full model's score.

    >>> parse_loss("1.0"), parse_loss("2%")
    ((0.01, False), (0.02, True))

    Raises:
        UserError: it is none.
    """
    relative = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise UserError(f"--max-loss {text} is not a loss; write 1.0 for a point, or 1% of the full model's score")
    return value / 100, relative


def parse_number(text: str) -> int:
    """Read a number of parameters.

    >>> parse_number("80M"), parse_number("1.5B")
    (80000000, 1500000000)

    Raises:
        UserError: it is none.
    """
    factor = {"K": 10**3, "M": 10**6, "B": 10**9}.get(text[-1:].upper(), 1)
    try:
        value = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        value = -1.0
    if not 0 < value < 1e15:
        raise UserError(f"--max-parameters {text} is not a number of parameters; write 80M")
    return int(value)
