"""Which runs may be compared with which, and what comes of it. No torch."""

import re
import statistics
from collections.abc import Iterable, Sequence
from functools import lru_cache

from depthprune.reporting.paper.numbers import named_in_paper
from depthprune.reporting.results import Results, Run
from depthprune.tasks.metrics.base import FRACTION, HIGHER

DISTILLED = ("distil", "minilm", "tinybert", "mobilebert")  # parts of names; the first covers "distilled"
FAMILIES = {"roberta": r"(^|[^a-z])roberta-", "xlnet": r"(^|[^a-z])xlnet-", "bert": r"(^|[^a-z])bert-(base|large)"}


def drops_first(run: Run) -> bool:
    """Tell whether all layers go before anything is trained, which is the paper's way."""
    return run.drops_first


def plain(run: Run) -> bool:
    """Tell whether a run is the paper's way in all: drop first, then train everything that is left."""
    return drops_first(run) and not run.heal.freeze_layers and not run.heal.freeze_embeddings


def like_paper(run: Run) -> bool:
    """Tell whether a run's metric is of the paper's kind: a fraction, the higher the better."""
    return (run.measured.unit, run.measured.better) == (FRACTION, HIGHER)


def loss(run: Run) -> float:
    """Return how much worse a run is than the full model, which must be known, in the unit of the metric."""
    assert run.full is not None
    return run.measured.lost(run.full)


def in_points(runs: Iterable[Run]) -> list[Run]:
    """Leave the runs whose full model is known and whose losses are points: those of a metric that is a fraction."""
    return [run for run in runs if run.full is not None and run.full.unit == FRACTION]


def largest_within(runs: Sequence[Run], most: float) -> int:
    """Return the largest K whose runs lose at most so many points on average; 0 where none does."""
    best = 0
    for count in sorted({run.count for run in runs}):
        lost = statistics.fmean(loss(run) for run in runs if run.count == count)
        if round(100 * lost, 6) <= most:  # 0.85 − 0.83 is a little more than 0.02
            best = count
    return best


def tuning_speedup(results: Results, runs: Sequence[Run]) -> float | None:
    """Return how many times faster fine-tuning is: the median over runs, each beside its full model; None without any.

    The full model is that of the same task, data, seed and recipe; other recipes than the paper's train more than once.
    """
    ratios = []
    for run in runs:
        whole = results.full_of(run) if run.dropped and run.drops_first else None
        if whole is not None and min(whole.train_seconds, run.train_seconds) > 0:
            ratios.append(whole.train_seconds / run.train_seconds)
    return statistics.median(ratios) if ratios else None


def base_name(strategy: str) -> str:
    """Return a strategy's name without its options.

    >>> base_name("contribution (threshold 0.9)")
    'contribution'
    """
    return strategy.partition(" (")[0]


@lru_cache(maxsize=1024)  # asked for every run by every claim about models
def family(name: str, model_type: str | None) -> str | None:
    """Return `bert`, `xlnet` or `roberta`, `distilled` for what was distilled from any model, None for the rest.

    >>> family("roberta-base", None), family("my-model", "bert"), family("distilroberta-base", "roberta")
    ('roberta', 'bert', 'distilled')
    """
    last = name.rstrip("/").rpartition("/")[2].lower()
    if model_type in ("distilbert", "mobilebert") or any(part in last for part in DISTILLED):
        return "distilled"
    if model_type is not None:
        return model_type if model_type in FAMILIES else None
    found = (known for known, pattern in FAMILIES.items() if re.search(pattern, last))
    return None if last.startswith("xlm-") else next(found, None)


def names_of_family(wanted: str, models: Sequence[tuple[str, str | None]]) -> list[str]:
    """Return which of the (name, architecture) are of a family; the paper's own alone where there are such.

    Claims about BERT are claims about the paper's: a tiny one beside it in the store says nothing about them.
    """
    found = sorted({name for name, model_type in models if family(name, model_type) == wanted})
    return [name for name in found if named_in_paper(name)] or found
