"""The tables of a report, as values: a title, headings and cells. No torch.

One description serves every format: HTML, Markdown, CSV and LaTeX are written from it.
"""

import statistics
from collections.abc import Sequence

from depthprune.evaluation.measurement import mean_shown, share_shown
from depthprune.plan import format_layers
from depthprune.reporting.analyses import analysis_tables
from depthprune.reporting.answer import answer_table
from depthprune.reporting.cells import Group, groups
from depthprune.reporting.claims import verdicts
from depthprune.reporting.pairs import in_points, largest_within, loss, tuning_speedup
from depthprune.reporting.paper.tables import paper_tables
from depthprune.reporting.results import Results, Run
from depthprune.reporting.settings import command, healing_words
from depthprune.reporting.tables.before_healing import before_healing_table
from depthprune.reporting.tables.comparisons import comparison_tables
from depthprune.reporting.tables.table import Table, seeds_words
from depthprune.reporting.values import median_of, or_unknown
from depthprune.tasks.metrics.base import LOWER

__all__ = ["Table", "all_tables"]

POINTS = (1.0, 2.0, 3.0)
K = "K is the number of dropped layers."


def all_tables(results: Results, *, claims: bool = False, chosen: str | None = None) -> list[Table]:
    """Return every table that the runs give something for.

    Args:
        claims: also the claims that no runs are about.
        chosen: the digest of the run that is the answer; the smallest that loses little if left out.
    """
    tables = [answer_table(results, chosen=chosen), *score_tables(results), within_table(results), cost_table(results)]
    tables += [
        *comparison_tables(results),
        before_healing_table(results),
        layers_table(results),
        robustness_table(results),
        *paper_tables(results),
    ]
    tables += [verdict_table(results, every=claims), *analysis_tables(results.analyses), runs_table(results)]
    return [table for table in tables if table.rows]


def verdict_table(results: Results, *, every: bool = False) -> Table:
    """The paper's claims that runs are about, or all, each with its verdict."""
    rows = tuple((str(v.number), v.claim, v.verdict, v.evidence) for v in verdicts(results, every=every))
    note = (
        "Differences are over the seeds that both sides have, and intervals are of single ones: t over the seeds of "
        "training and bootstrap over rows, paired where runs share them. A claim is decided at 5 % over all its "
        "comparisons (Holm), so that one interval beyond 0 may not be enough; inconclusive means that chance may be "
        "all there is."
    )
    return Table("claims", "The paper's claims", ("no.", "claim", "verdict", "because"), rows, note)


def score_tables(results: Results) -> list[Table]:
    """For each model, task and recipe, and on average over the tasks: the score of every strategy at every count."""
    return [_score_table(group, first=not n) for n, group in enumerate(groups(results))]


def _score_table(group: Group, *, first: bool) -> Table:
    runs, some = group.runs, group.runs[0]
    counts = sorted({run.count for run in runs if run.strategies})
    rows = []
    for name in sorted({name for run in runs for name in run.strategies}):
        cells = [_cell([run for run in runs if run.count == count and name in run.strategies]) for count in counts]
        rows.append((name, *cells))
    said = mean_shown(group.full) if group.full else "not run"
    in_brackets = "In brackets the share of the full model's score."
    if some.measured.better == LOWER:
        in_brackets = "Lower is better; in brackets how many times the full model's score."
    spread = seeds_words([run.seed for run in runs])
    return Table(
        f"scores-{group.name}",
        f"{group.title}: {some.primary}, full model {said}",
        ("strategy", *(f"K = {count}" for count in counts)),
        tuple(rows),
        f"{f'{K} ' if first else ''}{some.recipe}; {some.measured.examples} examples; {spread}. {in_brackets}",
    )


def _cell(runs: Sequence[Run]) -> str:
    if not runs:
        return "–"
    kept = [run.retention for run in runs if run.retention is not None]
    share = f" ({share_shown(kept, runs[0].measured.better)})" if kept else ""
    return mean_shown([run.measured for run in runs]) + share


def within_table(results: Results) -> Table:
    """The largest K within one, two and three points of the full model, by task, strategy and recipe."""
    pruned = in_points(results.pruned())
    groups: dict[tuple[str, str, str, str], list[Run]] = {}
    for run in pruned:
        for name in run.strategies:
            groups.setdefault((run.model, run.on, name, healing_words(run.heal)), []).append(run)
    several = len({recipe for _, _, _, recipe in groups}) > 1
    rows = []
    for (_, task, name, recipe), runs in sorted(groups.items()):
        cells = [str(largest_within(runs, most)) for most in POINTS]
        tried = format_layers(sorted({run.count for run in runs}))
        rows.append((runs[0].model_name, task, name, *([recipe] if several else []), *cells, tried))
    headings = ("model", "task", "strategy", *(["recipe"] if several else []),
                *(f"within {most:g}" for most in POINTS), "K tried")  # fmt: skip
    return Table("within", "Largest K within so many points of the full model", headings, tuple(rows),
                 f"{K} Scores are not monotone in K, so the largest is meant and not the first failure; only K that "
                 "were tried count.")  # fmt: skip


def cost_table(results: Results) -> Table:
    """Size and speed by the number of layers that go, for each task, since its texts are as long as they are."""
    cells: dict[tuple[str, str, int], list[Run]] = {}
    for run in results.runs:
        cells.setdefault((run.model, run.on, run.count), []).append(run)
    several = len({on for _, on, _ in cells}) > 1
    rows = []
    for (_, on, count), runs in sorted(cells.items()):
        some = runs[0]
        smaller = 100 * (1 - some.parameters / some.full_parameters)
        latency, speed = (median_of(getattr(r, name) for r in runs) for name in ("latency_ms", "speedup"))
        tuning = tuning_speedup(results, runs) if count else 1.0
        rows.append(
            (
                some.model_name,
                *([on] if several else []),
                str(count),
                f"{some.parameters / 1e6:.2f} M",
                f"{smaller:.1f} %",
                f"{some.weight_bytes / 1e6:.0f} MB",
                or_unknown(latency),
                or_unknown(speed if count else 1.0, "×"),
                or_unknown(tuning, "×"),
            )
        )
    headings = ("model", *(["task"] if several else []), "K", "parameters", "smaller", "weights", "ms an example",
                "faster", "fine-tuning")  # fmt: skip
    hardware = "; ".join(dict.fromkeys(run.hardware for run in results.runs if run.hardware))
    return Table("cost", "Size and speed", headings, tuple(rows),
                 f"{K} Times are medians over runs{f' on {hardware}' if hardware else ''}. Faster: the full model's "
                 "latency over the pruned one's, each pair timed in one process. Fine-tuning: over the runs that drop "
                 "first, how many times faster it was than the full model's with the same task, data, seed and "
                 "recipe.")  # fmt: skip


def layers_table(results: Results) -> Table:
    """The layers that each strategy keeps, drawn as a row of squares."""
    rows, seen = [], set()
    for run in sorted(results.pruned(), key=lambda run: (run.model, run.strategies, run.count)):
        for name in run.strategies:
            key = (run.model, name, run.count, run.dropped)
            if key not in seen:
                seen.add(key)
                picture = "".join("□" if i in run.dropped else "■" for i in range(run.depth))
                rows.append((run.model_name, name, str(run.count), picture, format_layers(run.dropped)))
    rows.sort(key=lambda row: (row[0], row[1], int(row[2])))
    return Table("layers", "Layers kept (■) and dropped (□), layer 0 on the left",
                 ("model", "strategy", "K", "layers", "dropped"), tuple(rows))  # fmt: skip


def robustness_table(results: Results) -> Table:
    """Tasks in the order of what they lose, each over the same layers dropped, for each way to heal."""
    ways = {way for run in results.pruned() if (way := healing_words(run.heal))}
    rows = []
    for model in results.values("model"):
        for way in sorted(ways):
            runs = [run for run in in_points(results.pruned(model=model)) if healing_words(run.heal) == way]
            lost: dict[str, dict[tuple, list[float]]] = {}
            for run in runs:
                lost.setdefault(run.on, {}).setdefault(run.plan, []).append(loss(run))
            shared = set.intersection(*map(set, lost.values())) if len(lost) > 1 else set()
            if shared:
                # A plan counts once, however many seeds it was run with.
                means = {on: statistics.fmean(statistics.fmean(plans[p]) for p in shared) for on, plans in lost.items()}
                for on in sorted(means, key=means.__getitem__):
                    about = (runs[0].model_name, *([way] if len(ways) > 1 else []), on)
                    rows.append((*about, f"{100 * means[on]:.2f}", str(len(shared))))
    headings = ("model", *(["recipe"] if len(ways) > 1 else []), "task", "points lost", "plans")
    return Table("robustness", "Robust tasks first: mean loss in points", headings, tuple(rows),
                 "Over the plans, that is sets of dropped layers, that all tasks of a model were run "
                 "with.")  # fmt: skip


def runs_table(results: Results) -> Table:
    """Every run, with its digest and what reproduces it."""
    ordered = sorted(results.runs, key=lambda run: (run.model_name, run.task, run.count, run.dropped, run.seed))
    rows = [
        (
            run.on,
            ", ".join(run.strategies) or "full",
            format_layers(run.dropped) or "none",
            run.measured.shown(),
            str(run.seed),
            run.digest,
            command(run),
        )
        for run in ordered
    ]
    headings = ("task", "strategies", "dropped", "score", "seed", "run", "command")
    return Table("runs", "Every run", headings, tuple(rows),
                 "MODEL is the model's folder. Older records do not say where the data was: add --dataset where it is "
                 "local, and for own data write its columns for TEXT and LABEL.")  # fmt: skip
