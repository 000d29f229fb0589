"""The smallest model within a bound: the paper's "largest K within δ", as a search over every K.

Scores are not monotone in K, so every count is tried unless a budget says otherwise, and the answer is then a lower
bound. Stored runs count; nothing is trained twice. No torch until a run starts.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from depthprune.errors import UserError
from depthprune.experiments.executors.base import Resources
from depthprune.experiments.expansion import Expansion, Job
from depthprune.experiments.store import Store
from depthprune.experiments.summary import readable_record, score_of
from depthprune.experiments.sweep import carry_out


@dataclass(frozen=True)
class Bounds:
    """What the model may lose or cost; those that are None do not bind.

    Args:
        max_loss: of the primary metric below the full model's: a fraction of it with `relative`, else a difference.
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

    def allow(self, record: dict[str, Any], full: float) -> bool:
        """Tell whether a run is within every bound."""
        profile, loss = record["outcome"]["profile"], full - score_of(record)
        return (
            (self.max_loss is None or loss <= self.max_loss * (full if self.relative else 1) + 1e-12)
            and (self.max_parameters is None or profile["parameters"] <= self.max_parameters)
            and (self.max_latency_ms is None or profile["latency_ms"] <= self.max_latency_ms)
            and (self.speedup is None or profile["full_latency_ms"] / profile["latency_ms"] >= self.speedup)
        )


def parse_loss(text: str) -> tuple[float, bool]:
    """Read a bound on the loss: `1.0` is points of the metric × 100, `1%` a share of the full model's score.

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
        raise UserError(f"--max-loss {text} is no loss; write 1.0 for a point, or 1% of the full model's score")
    return value / 100, relative


@dataclass(frozen=True)
class Answer:
    """What `find` came to.

    Args:
        digest: of the best run within the bounds, or None where there is none.
        record: its record.
        full: the full model's score.
        tried: records of all runs that were looked at, by digest.
        complete: whether every plan was tried; otherwise a larger K may do, too.
    """

    digest: str | None
    record: dict[str, Any] | None
    full: float
    tried: dict[str, dict[str, Any]]
    complete: bool


def find(
    expansion: Expansion,
    store: Store,
    bounds: Bounds,
    *,
    budget: int | None = None,
    resources: Resources | None = None,
    device: str = "auto",
    on_end: Callable[[str, str, str], None] = lambda digest, state, line: None,
) -> Answer:
    """Run the plans of a sweep over one model and task, and return the smallest within the bounds.

    Of two of one size, the one that scores higher; where only size or speed is bounded, the highest score.

    Raises:
        UserError: a run failed.
    """
    chosen = within_budget(expansion, store, budget)
    kept_before = {digest for digest in chosen.jobs if store.model_folder(digest).is_dir()}

    def carry(jobs: Expansion, *, redo: bool) -> None:
        for digest, state, line in carry_out(jobs, store, resources=resources, device=device, save=True, redo=redo):
            on_end(digest, state, line)
            if state == "failed":
                raise UserError(f"the run {digest} failed ({line}); its folder in '{store.root}' says more")

    carry(chosen, redo=False)  # what is recorded counts, with or without its checkpoint
    records = {d: r for d in chosen.jobs if (r := readable_record(store.folder(d) / "record.json")) is not None}
    full = next(score_of(record) for record in records.values() if not record["spec"]["drop"]["dropped"])
    within = {digest: record for digest, record in records.items() if bounds.allow(record, full)}
    complete = len(chosen.jobs) == len(expansion.jobs)

    def rank(digest: str) -> tuple:
        size, score = within[digest]["outcome"]["profile"]["parameters"], score_of(within[digest])
        return (size, -score) if bounds.max_loss is not None else (-score, size)

    best = min(within, key=rank, default=None)
    for digest in records:  # the losers' checkpoints, but for those that were there before; their records stay
        if digest != best and digest not in kept_before:
            shutil.rmtree(store.model_folder(digest), ignore_errors=True)
    if best is None:
        return Answer(None, None, full, records, complete)
    if not store.model_folder(best).is_dir():
        carry(Expansion({best: chosen.jobs[best]}), redo=True)
    return Answer(best, within[best], full, records, complete)


def within_budget(expansion: Expansion, store: Store, budget: int | None) -> Expansion:
    """Leave as many plans that are not done as the budget allows, spread over the counts: the middle ones first."""
    if budget is None:
        return expansion
    todo = [digest for digest, job in expansion.jobs.items() if job.plan.dropped and store.record(digest) is None]
    ordered = _spread(sorted(todo, key=lambda digest: expansion.jobs[digest].plan.count))
    left_out = set(ordered[budget:])
    jobs: dict[str, Job] = {digest: job for digest, job in expansion.jobs.items() if digest not in left_out}
    return Expansion(jobs, [row for row in expansion.rows if row.digest in jobs], expansion.skipped)


def _spread(items: Sequence[str]) -> list[str]:
    """Order items so that any beginning is spread over them: the middle, the middles of the halves, …

    >>> _spread("abcdefg")
    ['d', 'b', 'f', 'a', 'c', 'e', 'g']
    """
    found, waiting = [], [(0, len(items))]
    while waiting:
        start, stop = waiting.pop(0)
        if start < stop:
            middle = (start + stop) // 2
            found.append(items[middle])
            waiting += [(start, middle), (middle + 1, stop)]
    return found
