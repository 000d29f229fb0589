"""Our numbers beside the paper's, for the models that are the paper's. No torch.

Ours are the runs that drop first and train everything then. The paper's look like single runs, ours may be means.
"""

import statistics
from collections.abc import Mapping, Sequence

from depthprune.evaluation.measurement import Measurement
from depthprune.plan import format_layers
from depthprune.reporting.pairs import base_name, largest_within, like_paper, plain, tuning_speedup
from depthprune.reporting.paper.numbers import (
    MODELS,
    SOURCE,
    TASKS,
    WITHIN_TASKS,
    PaperModel,
    named_in_paper,
    paper_model,
)
from depthprune.reporting.results import Results, Run, mean_and_spread
from depthprune.reporting.tables.table import Table, points, seeds_words
from depthprune.reporting.values import median_of

FULL = "full model"
NONE = "–"


def paper_tables(results: Results) -> list[Table]:
    """Return, for each of the paper's models and each recipe: scores, means, the largest K, size and speed."""
    tables = []
    for model in results.values("model"):
        runs = [run for run in results.runs if run.model == model and plain(run) and like_paper(run)]
        name = paper_model(*_looks(runs[0])) if runs else None
        recipes = sorted({run.recipe for run in runs if run.dropped})
        for n, recipe in enumerate(recipes if name is not None else []):
            some = [run for run in runs if run.recipe == recipe]
            end = f"{model[-6:]}" + (f"-{n + 1}" if n else "")
            tables += _of(MODELS[name or ""], some, end, results)
    return [table for table in tables if table.rows]


def _looks(run: Run) -> tuple[str, str | None, int, int]:
    return run.model_name, run.model_type, run.full_parameters, run.depth


def _of(paper: PaperModel, runs: Sequence[Run], end: str, results: Results) -> list[Table]:
    name = runs[0].model_name
    about = f"Ours: {runs[0].recipe}; {seeds_words([run.seed for run in runs])}. The paper's: {SOURCE}, one run each."
    if named_in_paper(name) is None:
        about += f" {name} is taken for {paper.name} by its architecture and number of parameters."
    return [
        _scores(paper, runs, f"{name}: top, by task", f"paper-scores-{end}", about),
        _means(paper, runs, f"{name}: mean over the tasks", f"paper-means-{end}", about),
        _within(paper, runs, f"{name}: largest K within so many points, top", f"paper-within-{end}"),
        _cost(paper, runs, f"{name}: size and speed", f"paper-cost-{end}", results),
    ]


def _cells(runs: Sequence[Run], strategy: str) -> dict[tuple[int, str], list[Run]]:
    """Return (K, task) → runs of a strategy, and with K = 0 those of the full model."""
    cells: dict[tuple[int, str], list[Run]] = {}
    for run in runs:
        if run.task in TASKS and (run.is_full or strategy in map(base_name, run.strategies)):
            cells.setdefault((run.count, run.task), []).append(run)
    return cells


def _scores(paper: PaperModel, runs: Sequence[Run], title: str, name: str, about: str) -> Table:
    cells = _cells(runs, "top")
    rows = []
    for n, task in enumerate(TASKS):
        for count, scores in sorted(paper.top.items()):
            if (count, task) in cells:
                mean, spread = mean_and_spread([run.score for run in cells[count, task]])
                rows.append(
                    (
                        task,
                        str(count),
                        Measurement(mean).shown(spread),
                        f"{scores[n]:.2f}",
                        points(mean - scores[n] / 100),
                    )
                )
    note = f"{about} Accuracy; for stsb we take Pearson's correlation, and the paper does not say which."
    return Table(name, title, ("task", "K", "ours", "the paper's", "difference"), tuple(rows), note)


def _means(paper: PaperModel, runs: Sequence[Run], title: str, name: str, about: str) -> Table:
    """Over all seven tasks, or for top, whose scores the paper prints, over those that we have."""
    rows, left_out = [], set()
    strategies = ("top", *(strategy for strategy in paper.means if strategy != "top"))
    for strategy in strategies:
        cells = _cells(runs, strategy)
        for count in sorted({count for count, _ in cells}):
            if count == 0 and strategy != "top":
                continue
            tasks = [task for task in TASKS if (count, task) in cells]
            theirs = _paper_mean(paper, strategy, count, tasks)
            if theirs is not None and len(tasks) > 1:
                mean, spread = _over_tasks({task: cells[count, task] for task in tasks})
                over = "all seven" if len(tasks) == len(TASKS) else ", ".join(tasks)
                rows.append((strategy if count else FULL, str(count), over, Measurement(mean).shown(spread), theirs[1],
                             points(mean - theirs[0])))  # fmt: skip
            elif strategy != "top" and count in paper.means[strategy]:
                left_out.add(strategy)
    note = f"{about} Strategies other than top are read off the paper's chart, ±0.03."
    if left_out:
        note += (
            f" Left out, because the chart has no mean over fewer than the seven tasks: {', '.join(sorted(left_out))}."
        )
    headings = ("strategy", "K", "tasks", "ours", "the paper's", "difference")
    return Table(name, title, headings, tuple(sorted(rows, key=lambda row: row[0] != FULL)), note)


def _paper_mean(paper: PaperModel, strategy: str, count: int, tasks: Sequence[str]) -> tuple[float, str] | None:
    """Return the paper's mean over some tasks, as a fraction and as text; None where it cannot be known."""
    if strategy == "top" and count in paper.top and tasks:
        value = statistics.fmean(paper.top[count][TASKS.index(task)] for task in tasks)
        return value / 100, f"{value:.2f}"
    value = paper.means.get(strategy, {}).get(count)
    return (value / 100, f"{value:.2f} (chart)") if value is not None and len(tasks) == len(TASKS) else None


def _over_tasks(runs: Mapping[str, Sequence[Run]]) -> tuple[float, float | None]:
    """Return the mean over tasks of the means over seeds, and its spread over the seeds that all tasks have."""
    mean = statistics.fmean(statistics.fmean(run.score for run in some) for some in runs.values())
    seeds = set.intersection(*({run.seed for run in some} for some in runs.values()))
    whole = [
        statistics.fmean(statistics.fmean(r.score for r in some if r.seed == seed) for some in runs.values())
        for seed in seeds
    ]
    return mean, statistics.stdev(whole) if len(whole) > 1 else None


def _within(paper: PaperModel, runs: Sequence[Run], title: str, name: str) -> Table:
    rows = []
    for n, task in enumerate(WITHIN_TASKS if paper.within else ()):
        some = [r for r in runs if r.dropped and r.task == task and "top" in r.strategies and r.full_score is not None]
        if some:
            pairs = [(str(largest_within(some, most)), str(paper.within[most][n])) for most in sorted(paper.within)]
            rows.append(
                (task, *(cell for pair in pairs for cell in pair), format_layers(sorted({r.count for r in some})))
            )
    headings = [f"within {most}, {whose}" for most in sorted(paper.within) for whose in ("ours", "the paper's")]
    note = "The paper tried every K; ours is the largest of those tried, which may be too few."
    return Table(name, title, ("task", *headings, "K tried"), tuple(rows), note)


def _cost(paper: PaperModel, runs: Sequence[Run], title: str, name: str, results: Results) -> Table:
    rows = []
    for count, millions in sorted(paper.parameters.items()):
        some = [run for run in runs if run.count == count]
        if not some:
            continue
        tuning = tuning_speedup(results, some)
        speed = median_of(run.speedup for run in some)
        rows.append(
            (
                str(count),
                f"{some[0].parameters / 1e6:.1f} M",
                f"{millions} M",
                f"{tuning:.2f}×" if tuning is not None else NONE,
                f"{paper.tuning[count]:.2f}×" if count in paper.tuning else NONE,
                f"{100 * (1 - 1 / speed):.0f} %" if count and speed is not None else NONE,
                f"{paper.inference[count]} %" if count in paper.inference else NONE,
            )
        )
    headings = ("K", *(f"{what}, {whose}" for what in ("parameters", "fine-tuning faster", "inference time saved")
                       for whose in ("ours", "the paper's")))  # fmt: skip
    note = (
        f"The paper's: {SOURCE}, timed over the development set of QQP in batches of 32. Ours: medians over the runs "
    )
    note += "of one recipe, all strategies, with rows of their own tasks."
    return Table(name, title, headings, tuple(rows), note)
