"""Evaluate plans for a search: nothing twice, worse ones cut short if asked for, everything written down.

An objective is a mean over batches of calibration data; lower is better. What was evaluated is kept by plan and batch,
in memory and in a trace on the disk: a search that was killed reads its trace, repeats its decisions without running
the model, and goes on.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from depthprune.errors import UserError
from depthprune.plan import LayerPlan

FORMAT = "depthprune-trace/1"
SURE = 3.0  # standard errors by which a candidate must be worse to be given up
FEWEST = 4  # batches before one is given up

Part = tuple[float, int]


class BatchObjective(Protocol):
    """What a search minimises: the mean of a cost over batches."""

    num_batches: int

    def batch(self, plan: LayerPlan, number: int) -> Part:
        """Return the sum of the cost of a plan on a batch, and over how many predictions."""
        ...

    def finish(self, mean: float) -> float:
        """Make the value of the mean; rising with it."""
        ...

    def keep(self, plans: Iterable[LayerPlan]) -> None:
        """Forget what was kept for the sake of other plans than these."""
        ...

    def warm(self, plan: LayerPlan) -> None:
        """Make ready for plans that begin like this one."""
        ...


@dataclass(frozen=True)
class FunctionObjective:
    """A plain function of a plan as an objective of a single batch.

    >>> FunctionObjective(lambda plan: sum(plan.dropped)).batch(LayerPlan(6, (4, 5)), 0)
    (9, 1)
    """

    function: Callable[[LayerPlan], float]
    num_batches: int = 1

    def batch(self, plan: LayerPlan, number: int) -> Part:
        return self.function(plan), 1

    def finish(self, mean: float) -> float:
        return mean

    def keep(self, plans: Iterable[LayerPlan]) -> None:
        pass

    def warm(self, plan: LayerPlan) -> None:
        pass


class Evaluator:
    """Gives the values of plans.

    Args:
        objective: what is minimised.
        trace: file to read what is known from and to write what is new to; none is kept without it.
        header: what the trace is about; one about something else is refused.
        race: give a candidate up that is clearly worse than its rival after some batches.
        on_trial: called with the number of plans evaluated so far.

    Attributes:
        evaluated: batches run by this evaluator, those read from the trace aside.

    Raises:
        UserError: if the trace belongs to another search, or racing is asked for with a single batch.
    """

    def __init__(
        self,
        objective: BatchObjective,
        *,
        trace: Path | None = None,
        header: dict[str, Any] | None = None,
        race: bool = False,
        on_trial: Callable[[int], None] = lambda done: None,
    ):
        if race and objective.num_batches < 2 * FEWEST:
            raise UserError(
                f"--race needs a mean over at least {2 * FEWEST} batches, and there are {objective.num_batches}; "
                "leave it out, or give more --samples or a smaller --batch-size"
            )
        self._objective, self._race, self._on_trial = objective, race, on_trial
        self._parts: dict[tuple[int, ...], list[Part]] = {}
        self.evaluated = 0
        self._to_warm: LayerPlan | None = None
        self._file = None
        if trace is not None:
            self._parts = _open_trace(trace, header or {})
            self._file = trace.open("a", encoding="utf-8")

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def trials(self) -> int:
        """Plans evaluated, in whole or in part."""
        return len(self._parts)

    @property
    def racing(self) -> bool:
        """Whether candidates that are clearly worse are given up."""
        return self._race

    @property
    def num_batches(self) -> int:
        """Batches of the sample."""
        return self._objective.num_batches

    def value(self, plan: LayerPlan, *, batches: int | None = None, rival: LayerPlan | None = None) -> float:
        """Return the objective of a plan.

        Args:
            batches: the first so many of the sample; all by default.
            rival: the plan to beat, where candidates race: one that is clearly worse is given up, and its value is
                that over the batches it was run on.
        """
        parts = self._parts.setdefault(plan.dropped, [])
        known, started = len(parts), time.perf_counter()
        while len(parts) < (batches or self.num_batches):
            if rival is not None and self._race and _clearly_worse(parts, self._parts.get(rival.dropped, [])):
                break
            if self._to_warm is not None:  # not before it is needed: a search that goes on knows its first plans
                self._objective.warm(self._to_warm)
                self._to_warm = None
            parts.append(self._objective.batch(plan, len(parts)))
        if len(parts) > known:
            self.evaluated += len(parts) - known
            self._write(plan, known, time.perf_counter() - started)
            self._on_trial(len(self._parts))
        return self._objective.finish(sum(total for total, _ in parts) / sum(count for _, count in parts))

    def complete(self, plan: LayerPlan) -> bool:
        """Tell whether a plan was evaluated on all batches."""
        return len(self._parts.get(plan.dropped, [])) == self.num_batches

    def keep(self, plans: Iterable[LayerPlan]) -> None:
        """Tell the objective which plans others will begin like."""
        self._objective.keep(plans)

    def warm(self, plan: LayerPlan) -> None:
        """Tell the objective that the next plans will begin like this one."""
        self._to_warm = plan

    def _write(self, plan: LayerPlan, known: int, seconds: float) -> None:
        if self._file is None:
            return
        parts = self._parts[plan.dropped]
        entry = {
            "dropped": list(plan.dropped),
            "value": self._objective.finish(sum(t for t, _ in parts) / sum(c for _, c in parts)),
            "fraction": len(parts) / self.num_batches,
            "from": known,
            "parts": parts[known:],
            "seconds": round(seconds, 3),
        }
        try:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"the trace '{self._file.name}' cannot be written ({error.strerror}); free some space and run again: "
                "what was evaluated stays"
            ) from None


def _clearly_worse(parts: list[Part], rival: list[Part]) -> bool:
    """Compare two plans on the batches that both were run on, in pairs."""
    pairs = list(zip(parts, rival, strict=False))
    if len(pairs) < FEWEST:
        return False
    gaps = [total / count - other / others for (total, count), (other, others) in pairs]
    mean = sum(gaps) / len(gaps)
    spread = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1))
    return mean > SURE * spread / math.sqrt(len(gaps))


def _open_trace(file: Path, header: dict[str, Any]) -> dict[tuple[int, ...], list[Part]]:
    """Read a trace, and leave a file that can be appended to: a line that was cut off is taken away."""
    first = json.dumps({"format": FORMAT, **header}, sort_keys=True)
    try:
        if not file.exists() or not file.stat().st_size:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(first + "\n", encoding="utf-8")
            return {}
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):
            os.truncate(file, len("".join(whole).encode()))
            if not whole:
                file.write_text(first + "\n", encoding="utf-8")
                return {}
    except OSError as error:
        raise UserError(f"the trace '{file}' cannot be used ({error.strerror}); give another --output") from None
    if whole[0].rstrip("\n") != first:
        raise UserError(f"'{file}' is the trace of another search; give another --output, or remove it")
    return _parse(file, whole[1:])


def _parse(file: Path, lines: list[str]) -> dict[tuple[int, ...], list[Part]]:
    parts: dict[tuple[int, ...], list[Part]] = {}
    for number, line in enumerate(lines, start=2):
        try:
            entry = json.loads(line)
            known = parts.setdefault(tuple(entry["dropped"]), [])
            if entry["from"] != len(known):
                raise ValueError
            known += [(float(total), int(count)) for total, count in entry["parts"]]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"line {number} of the trace '{file}' is broken; remove it and run again") from None
    return parts


def read_trace(file: Path) -> list[dict[str, Any]]:
    """Return the entries of a trace, in the order of evaluation: `dropped`, `value`, `fraction`, `seconds`.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()[1:]
        return [json.loads(line) for line in lines]
    except (OSError, ValueError):
        raise UserError(f"the trace '{file}' cannot be read; run depthprune search") from None
