"""Runs as values: what a report is made of. No torch."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from depthprune.evaluation.measurement import Measurement
from depthprune.reporting.analyses import Analysis
from depthprune.reporting.searches import Search
from depthprune.specs import HealSpec
from depthprune.tasks.metrics.base import FRACTION


@dataclass(frozen=True)
class Run:
    """A recorded run.

    Args:
        digest: its name.
        model, model_name: identity, and what a sweep calls it, or else the folder.
        task: of the run, and `primary`, its metric.
        strategies: names of all that chose these layers; none for the full model. A whole model that was trained for
            several depths has those of the runs that are cut from it.
        depth, dropped: the plan.
        seed: of the fine-tuning.
        recipe: all that is between the model and the score but layers, task and seed, as a text that like ones share.
        measured, full: the primary metric; the full model's is None where it has no record.
        parameters, full_parameters, weight_bytes: sizes.
        latency_ms, full_latency_ms: an example's, timed in turns; None where nobody timed it.
        train_seconds: of the fine-tuning.
        heal: the recipe's values.
        model_type: the architecture, as transformers calls it; None in older records.
        baseline: whether the model is only there to be compared with.
        order: of the layers, where they go one by one.
        group: what the full model's run has in common with it.
        setting: the part of `recipe` that is about data and scoring; empty where that is as usual.
        data, max_length: fingerprint of the rows, and tokens to which they are cut.
        data_options: how the data was asked for; empty in older records.
        steps: of all trainings; 0 where unknown.
        before_healing: whether nothing was done after the drop, and the head is not random.
        hardware: what it ran on.
        folder: of the record; None for what stands for several runs.
        seed_variance, seed_freedom: of scores over seeds, pooled over the plans of this model, task and recipe that
            were run with several, and its degrees of freedom; the latter 0 where there are none.
    """

    digest: str
    model: str
    model_name: str
    task: str
    primary: str
    strategies: tuple[str, ...]
    depth: int
    dropped: tuple[int, ...]
    seed: int
    recipe: str
    measured: Measurement
    full: Measurement | None
    parameters: int
    full_parameters: int
    weight_bytes: int
    latency_ms: float | None
    full_latency_ms: float | None
    train_seconds: float
    heal: HealSpec = field(default_factory=HealSpec)
    model_type: str | None = None
    baseline: bool = False
    order: tuple[int, ...] = ()
    group: str = ""
    setting: str = ""
    data: str = ""
    max_length: int = 128
    data_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    steps: int = 0
    before_healing: bool = False
    hardware: str = ""
    folder: Path | None = None
    seed_variance: float = 0.0
    seed_freedom: int = 0

    @property
    def score(self) -> float:
        """The value of the primary metric."""
        return self.measured.value

    @property
    def full_score(self) -> float | None:
        """That of the full model; None where it has no record."""
        return None if self.full is None else self.full.value

    @property
    def count(self) -> int:
        """How many layers went."""
        return len(self.dropped)

    @property
    def is_full(self) -> bool:
        """Whether it is the full model, by which others are measured; see `store.records.is_full`."""
        return not self.dropped and not self.heal.steps

    @property
    def on(self) -> str:
        """The task, with what is unusual about its data and scoring."""
        return f"{self.task} ({self.setting})" if self.setting else self.task

    @property
    def plan(self) -> tuple:
        """Which layers went, and where they went one by one, in which order."""
        return self.dropped, self.order

    @cached_property
    def drops_first(self) -> bool:
        """Whether all layers go before anything is trained, which is the paper's way."""
        return self.heal == self.heal.for_full()

    @property
    def retention(self) -> float | None:
        """The share of the full model's quality that is kept; None where that is unknown, or there is no share."""
        return self.measured.retained(self.full) if self.full is not None else None

    @property
    def speedup(self) -> float | None:
        """Latency of the full model over that of this one; None where nobody timed it."""
        return self.full_latency_ms / self.latency_ms if self.latency_ms and self.full_latency_ms else None


@dataclass(frozen=True)
class Results:
    """Everything that a report is made of.

    Args:
        runs: every record that can be read.
        foreign: names of those that cannot, and of files among the analyses that are none.
        notes: cells that a sweep skipped, with the reason.
        analyses: of layers.
        searches: for the layers to drop.
    """

    runs: tuple[Run, ...]
    foreign: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    analyses: tuple[Analysis, ...] = ()
    searches: tuple[Search, ...] = ()

    def pruned(self, **fixed: Any) -> list[Run]:
        """Return the pruned runs whose attributes have these values."""
        return [run for run in self.runs if run.dropped and all(getattr(run, k) == v for k, v in fixed.items())]

    def values(self, name: str) -> list[Any]:
        """Return the values of an attribute, each once, sorted."""
        return sorted({getattr(run, name) for run in self.runs})

    def strategies(self) -> list[str]:
        """Return the names of the strategies that chose something."""
        return sorted({name for run in self.runs for name in run.strategies})

    def full_of(self, run: Run) -> Run | None:
        """Return the full model's run that a run is compared with, if there is one."""
        return self._full.get(run.group)

    @cached_property
    def _full(self) -> dict[str, Run]:
        return {run.group: run for run in self.runs if run.is_full}


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the standard deviation over seeds; None of a single one.

    >>> mean_and_spread([0.5])
    (0.5, None)
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def score_heading(runs: Iterable[Run]) -> str:
    """Return what a column of scores is called: most are fractions, which are shown × 100."""
    return "score × 100" if all(run.measured.unit == FRACTION for run in runs) else "score"


def median_of(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are known, or None where none is.

    >>> median_of([3.0, None, 1.0]), median_of([None])
    (2.0, None)
    """
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def or_unknown(value: float | None, unit: str = "") -> str:
    """Write a number that was measured, or that nobody measured it.

    >>> or_unknown(1.234, "×"), or_unknown(None)
    ('1.23×', 'n/a')
    """
    return "n/a" if value is None else f"{value:.2f}{unit}"
