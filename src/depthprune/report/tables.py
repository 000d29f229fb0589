"""The tables of a report, as values: a title, headings and cells. No torch.

One description serves every format: HTML, Markdown, CSV and LaTeX are written from it.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from depthprune.plan import format_layers
from depthprune.report.claims import verdicts
from depthprune.report.results import Results, Run, mean_and_spread, percent

POINTS = (1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        name: for files and anchors.
        title: what it shows.
        headings: of the columns.
        rows: as many cells each.
        note: what a reader must know.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def all_tables(results: Results) -> list[Table]:
    """Return every table that the runs give something for."""
    tables = [verdict_table(results), *score_tables(results), within_table(results), cost_table(results)]
    tables += [layers_table(results), robustness_table(results), runs_table(results)]
    return [table for table in tables if table.rows]


def verdict_table(results: Results) -> Table:
    """The paper's claims, each with its verdict."""
    rows = tuple((str(v.number), v.claim, v.verdict, v.evidence) for v in verdicts(results))
    note = "A difference counts only if it is larger than the noise: two standard errors, over seeds or over examples."
    return Table("claims", "The paper's claims", ("no.", "claim", "verdict", "because"), rows, note)


def score_tables(results: Results) -> list[Table]:
    """For each model, task and recipe: the score of every strategy at every count."""
    tables = []
    for model in results.values("model"):
        for task in results.values("task"):
            for recipe in results.values("recipe"):
                runs = [r for r in results.runs if (r.model, r.task, r.recipe) == (model, task, recipe)]
                if any(run.dropped for run in runs):
                    tables.append(_score_table(runs))
    return tables


def _score_table(runs: Sequence[Run]) -> Table:
    some = runs[0]
    counts = sorted({run.count for run in runs if run.dropped})
    names = sorted({name for run in runs for name in run.strategies})
    full = [run.score for run in runs if not run.dropped]
    rows = []
    for name in names:
        cells = []
        for count in counts:
            here = [run for run in runs if run.count == count and name in run.strategies]
            cells.append(_cell(here))
        rows.append((name, *cells))
    said = percent(*mean_and_spread(full)) if full else "not run"
    seeds = sorted({run.seed for run in runs})
    spread = f"± is the standard deviation over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "one seed"
    return Table(
        f"scores-{some.task}-{some.model[-6:]}",
        f"{some.model_name} on {some.task}: {some.primary}, full model {said}",
        ("strategy", *(f"K = {count}" for count in counts)),
        tuple(rows),
        f"{some.recipe}; {some.examples} examples; {spread}. In brackets the share of the full model's score.",
    )


def _cell(runs: Sequence[Run]) -> str:
    if not runs:
        return "–"
    kept = [run.retention for run in runs if run.retention is not None]
    share = f" ({100 * statistics.fmean(kept):.1f} %)" if kept else ""
    return percent(*mean_and_spread([run.score for run in runs])) + share


def within_table(results: Results) -> Table:
    """The largest K within one, two and three points of the full model, by task and strategy."""
    rows = []
    for model in results.values("model"):
        for task in results.values("task"):
            for name in results.strategies():
                runs = [
                    r
                    for r in results.pruned(model=model, task=task)
                    if name in r.strategies and r.full_score is not None
                ]
                if not runs:
                    continue
                counts = sorted({run.count for run in runs})
                cells = [str(_largest(runs, counts, points)) for points in POINTS]
                rows.append((runs[0].model_name, task, name, *cells, format_layers(counts)))
    headings = ("model", "task", "strategy", *(f"within {points:g}" for points in POINTS), "K tried")
    return Table("within", "Largest K within so many points of the full model", headings, tuple(rows),
                 "Scores are not monotone in K, so the largest is meant and not the first failure; only K that were "
                 "tried count.")  # fmt: skip


def _largest(runs: Sequence[Run], counts: Sequence[int], points: float) -> int:
    best = 0
    for count in counts:
        losses = [(run.full_score or 0.0) - run.score for run in runs if run.count == count]
        if 100 * statistics.fmean(losses) <= points:
            best = max(best, count)
    return best


def cost_table(results: Results) -> Table:
    """Size and speed by the number of layers that go."""
    rows = []
    for model in results.values("model"):
        for count in sorted({run.count for run in results.runs if run.model == model}):
            runs = [run for run in results.runs if run.model == model and run.count == count]
            some = runs[0]
            smaller = 100 * (1 - some.parameters / some.full_parameters)
            speed = [run.speedup for run in runs]
            rows.append(
                (
                    some.model_name,
                    str(count),
                    f"{some.parameters / 1e6:.2f} M",
                    f"{smaller:.1f} %",
                    f"{some.weight_bytes / 1e6:.0f} MB",
                    f"{statistics.median(speed):.2f}×" if count else "1.00×",
                    f"{statistics.median(run.train_seconds for run in runs):.0f} s",
                )
            )
    headings = ("model", "K", "parameters", "smaller", "weights", "faster", "fine-tuning")
    return Table("cost", "Size and speed", headings, tuple(rows),
                 "Faster: median over runs of the full model's latency over the pruned one's, each pair timed in one "
                 "process. Fine-tuning: median seconds.")  # fmt: skip


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
    """Tasks in the order of what they lose."""
    lost: dict[str, list[float]] = {}
    for run in results.pruned():
        if run.full_score is not None:
            lost.setdefault(run.task, []).append(run.full_score - run.score)
    if len(lost) < 2:
        return Table("robustness", "", (), ())
    ordered = sorted(lost, key=lambda task: statistics.fmean(lost[task]))
    rows = tuple((task, f"{100 * statistics.fmean(lost[task]):.2f}", str(len(lost[task]))) for task in ordered)
    return Table("robustness", "Robust tasks first: mean loss in points over all pruned runs",
                 ("task", "points lost", "runs"), rows)  # fmt: skip


def runs_table(results: Results) -> Table:
    """Every run, with its digest and what reproduces it."""
    ordered = sorted(results.runs, key=lambda run: (run.model_name, run.task, run.count, run.dropped, run.seed))
    rows = []
    for run in ordered:
        layers = f"--layers {format_layers(run.dropped)} " if run.dropped else ""
        command = f"depthprune run MODEL --task {run.task} {layers}{run.options} --seed {run.seed}"
        name = ", ".join(run.strategies) or "full"
        rows.append(
            (
                run.task,
                name,
                format_layers(run.dropped) or "none",
                percent(run.score),
                str(run.seed),
                run.digest,
                command,
            )
        )
    headings = ("task", "strategies", "dropped", "score", "seed", "run", "command")
    return Table(
        "runs",
        "Every run",
        headings,
        tuple(rows),
        "MODEL is the model's folder or Hub id; --dataset where the data is local.",
    )
