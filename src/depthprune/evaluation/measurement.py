"""Numbers that know their unit and which way is better: what runs are compared by. No torch."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from depthprune.tasks.metrics.base import FRACTION, HIGHER, LOWER, Better

LARGE = 10_000  # from here on numbers are shown with four digits


@dataclass(frozen=True)
class Measurement:
    """A number with what is needed to show it and to compare it with that of another model.

    Args:
        value: a fraction where the unit is `fraction`.
        examples: rows, or blocks of text, it was taken on; 0 where unknown.
        unit: `fraction`, which is shown × 100, or what stands behind the number; empty for a pure number.
        better: `higher` or `lower`.
        standard_error: over the examples, in the unit of the value; None where it is not known.
    """

    value: float
    examples: int = 0
    unit: str = FRACTION
    better: Better = HIGHER
    standard_error: float | None = None

    @property
    def scale(self) -> int:
        """What the value is multiplied by where it is shown: 100 for fractions."""
        return 100 if self.unit == FRACTION else 1

    @property
    def merit(self) -> float:
        """The value, with its sign turned where lower is better: of two models the one with more of it is better."""
        return self.value if self.better == HIGHER else -self.value

    def lost(self, full: "Measurement") -> float:
        """Return how much worse this is than the full model's, in the unit of the value; below 0 where it is better.

        >>> round(Measurement(0.7).lost(Measurement(0.8)), 6), Measurement(6, better="lower").lost(Measurement(5))
        (0.1, 1)
        """
        return full.value - self.value if self.better == HIGHER else self.value - full.value

    def retained(self, full: "Measurement") -> float | None:
        """Return the share of the full model's quality that is kept: 1 for all of it, whichever way is better.

        That is the value over the full model's where higher is better, and 0 where a correlation turned negative; the
        full model's over the value where lower is better. None where the divisor is not above 0.

        >>> [Measurement(value).retained(Measurement(0.8)) for value in (0.4, -0.9)], Measurement(1).retained(
        ...     Measurement(0))
        ([0.5, 0.0], None)
        >>> Measurement(8.0, better="lower").retained(Measurement(4.0))
        0.5
        """
        above, below = (self.value, full.value) if self.better == HIGHER else (full.value, self.value)
        return max(above, 0.0) / below if below > 0 else None

    def compared(self, full: "Measurement") -> str | None:
        """Return `retained` as text: a share, or times the full model's value where lower is better.

        >>> Measurement(0.4).compared(Measurement(0.8)), Measurement(5.28, better="lower").compared(Measurement(4.0))
        ('50.0 %', '1.32 ×')
        """
        share = self.retained(full)
        return None if share is None else share_shown([share], self.better)

    def shown(self, spread: float | None = None) -> str:
        """Return the value as text, fractions × 100, with a standard deviation behind it where one is given.

        >>> Measurement(0.8123).shown(), Measurement(0.8).shown(0.0123), Measurement(5.317, unit="bits").shown()
        ('81.23', '80.00 ± 1.23', '5.32 bits')
        """
        text = self._number(self.value) + (f" ± {self._number(spread)}" if spread is not None else "")
        return f"{text} {self.unit}" if self.unit not in (FRACTION, "") else text

    def amount(self, difference: float, *, signed: bool = False) -> str:
        """Return a difference between two such values as text.

        >>> Measurement(0.8).amount(0.0123), Measurement(5.3, unit="").amount(1.3, signed=True)
        ('1.23 points', '+1.30')
        """
        text = self._number(difference, sign="+" if signed else "")
        unit = "points" if self.unit == FRACTION else self.unit
        return f"{text} {unit}" if unit else text

    def _number(self, value: float, sign: str = "") -> str:
        value = self.scale * value
        return f"{value:{sign}.2f}" if abs(value) < LARGE else f"{value:{sign}.4g}"

    def to_dict(self) -> dict[str, Any]:
        """Return what a record holds: value and examples, and the rest where it is not a fraction, higher the better.

        >>> Measurement(0.5, 10).to_dict()
        {'value': 0.5, 'examples': 10}
        """
        entry: dict[str, Any] = {"value": self.value, "examples": self.examples}
        entry |= {"unit": self.unit} if self.unit != FRACTION else {}
        entry |= {"better": self.better} if self.better != HIGHER else {}
        return entry | ({"standard_error": self.standard_error} if self.standard_error is not None else {})


def measurement_of(entry: Mapping[str, Any]) -> Measurement:
    """Return the measurement in a record; older ones hold value and examples alone.

    Raises:
        KeyError, TypeError, ValueError: that is none.
    """
    if not isinstance(entry, Mapping):
        raise TypeError(f"{entry!r} is no measurement")
    unit, better, error = entry.get("unit", FRACTION), entry.get("better", HIGHER), entry.get("standard_error")
    if not isinstance(unit, str) or better not in (HIGHER, LOWER):
        raise ValueError(f"{dict(entry)!r} is no measurement")
    value, examples = float(entry["value"]), int(entry.get("examples", 0))
    return Measurement(value, examples, unit, better, None if error is None else float(error))


def primary_of(outcome: Mapping[str, Any]) -> Measurement:
    """Return the primary metric in the outcome of a run: what retention and bounds stand on.

    Raises:
        KeyError, TypeError, ValueError: it has none.
    """
    return measurement_of(outcome["metrics"][outcome["primary"]])


def measurements_of(outcome: Mapping[str, Any]) -> dict[str, Measurement]:
    """Return every metric in the outcome of a run."""
    return {name: measurement_of(entry) for name, entry in outcome["metrics"].items()}


def mean_of(some: Sequence[Measurement]) -> Measurement:
    """Return the mean of measurements of one metric, such as those of several seeds."""
    return replace(some[0], value=statistics.fmean(each.value for each in some), standard_error=None)


def mean_shown(some: Sequence[Measurement]) -> str:
    """Return the mean over seeds as text, with its standard deviation where there are several.

    >>> mean_shown([Measurement(0.8), Measurement(0.82)])
    '81.00 ± 1.41'
    """
    return mean_of(some).shown(statistics.stdev(each.value for each in some) if len(some) > 1 else None)


def share_shown(shares: Sequence[float], better: Better) -> str:
    """Return the mean of what several runs retain as text: a share, or times the full model's where lower is better."""
    if better == HIGHER:
        return f"{100 * statistics.fmean(shares):.1f} %"
    return f"{statistics.fmean(1 / share if share else math.inf for share in shares):.2f} ×"
