"""The tables of a report, as values: a title, headings and cells. No torch.

One description serves every format: HTML, Markdown, CSV and LaTeX are written from it.
"""

import statistics
from collections.abc import Sequence

from depthprune.plan import format_layers
from depthprune.report.analyses import analysis_tables
from depthprune.report.cells import Group, groups
from depthprune.report.claims import verdicts
from depthprune.report.comparisons import comparison_tables
from depthprune.report.pairs import largest_within, loss, tuning_speedup
from depthprune.report.paper_tables import paper_tables
from depthprune.report.results import Results, Run, mean_and_spread, percent
from depthprune.report.table import Table, seeds_words

__all__ = ["Table", "all_tables"]

POINTS = (1.0, 2.0, 3.0)


def all_tables(results: Results) -> list[Table]:
    """Return every table that the runs give something for."""
    tables = [verdict_table(results), *score_tables(results), within_table(results), cost_table(results)]
    tables += [*comparison_tables(results), layers_table(results), robustness_table(results), *paper_tables(results)]
    tables += [*analysis_tables(results.analyses), runs_table(results)]
    return [table for table in tables if table.rows]


def verdict_table(results: Results) -> Table:
    """The paper's claims, each with its verdict."""
    rows = tuple((str(v.number), v.claim, v.verdict, v.evidence) for v in verdicts(results))
    note = "A difference counts only if it is larger than the noise: two standard errors, over seeds or over examples."
    return Table("claims", "The paper's claims", ("no.", "claim", "verdict", "because"), rows, note)


def score_tables(results: Results) -> list[Table]:
    """For each model, task and recipe, and on average over the tasks: the score of every strategy at every count."""
    return [_score_table(group) for group in groups(results)]


def _score_table(group: Group) -> Table:
    runs, some = group.runs, group.runs[0]
    counts = sorted({run.count for run in runs if run.dropped})
    rows = []
    for name in sorted({name for run in runs for name in run.strategies}):
        cells = [_cell([run for run in runs if run.count == count and name in run.strategies]) for count in counts]
        rows.append((name, *cells))
    said = percent(*mean_and_spread(group.full)) if group.full else "not run"
    spread = seeds_words([run.seed for run in runs])
    return Table(
        f"scores-{group.name}",
        f"{group.title}: {some.primary}, full model {said}",
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
    """The largest K within one, two and three points of the full model, by task, strategy and recipe."""
    pruned = [run for run in results.pruned() if run.full_score is not None]
    groups: dict[tuple[str, str, str, str], list[Run]] = {}
    for run in pruned:
        for name in run.strategies:
            groups.setdefault((run.model, run.task, name, run.recipe), []).append(run)
    several = len({run.recipe for run in pruned}) > 1
    rows = []
    for (_, task, name, recipe), runs in sorted(groups.items()):
        cells = [str(largest_within(runs, most)) for most in POINTS]
        tried = format_layers(sorted({run.count for run in runs}))
        rows.append((runs[0].model_name, task, name, *([recipe] if several else []), *cells, tried))
    headings = ("model", "task", "strategy", *(["recipe"] if several else []),
                *(f"within {most:g}" for most in POINTS), "K tried")  # fmt: skip
    return Table("within", "Largest K within so many points of the full model", headings, tuple(rows),
                 "Scores are not monotone in K, so the largest is meant and not the first failure; only K that were "
                 "tried count.")  # fmt: skip


def cost_table(results: Results) -> Table:
    """Size and speed by the number of layers that go."""
    rows = []
    for model in results.values("model"):
        for count in sorted({run.count for run in results.runs if run.model == model}):
            runs = [run for run in results.runs if run.model == model and run.count == count]
            some = runs[0]
            smaller = 100 * (1 - some.parameters / some.full_parameters)
            speed = statistics.median(run.speedup for run in runs)
            tuning = tuning_speedup(results, runs) if count else 1.0
            rows.append(
                (
                    some.model_name,
                    str(count),
                    f"{some.parameters / 1e6:.2f} M",
                    f"{smaller:.1f} %",
                    f"{some.weight_bytes / 1e6:.0f} MB",
                    f"{speed:.2f}×" if count else "1.00×",
                    f"{tuning:.2f}×" if tuning is not None else "–",
                )
            )
    headings = ("model", "K", "parameters", "smaller", "weights", "faster", "fine-tuning")
    return Table("cost", "Size and speed", headings, tuple(rows),
                 "Faster: median over runs of the full model's latency over the pruned one's, each pair timed in one "
                 "process. Fine-tuning: median over the runs that drop first of how many times faster it was than the "
                 "full model's with the same task, seed and recipe.")  # fmt: skip


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
    """Tasks in the order of what they lose, each over the same layers dropped."""
    rows = []
    for model in results.values("model"):
        runs = [run for run in results.pruned(model=model) if run.full_score is not None]
        lost: dict[str, dict[tuple[int, ...], list[float]]] = {}
        for run in runs:
            lost.setdefault(run.task, {}).setdefault(run.dropped, []).append(loss(run))
        shared = set.intersection(*map(set, lost.values())) if len(lost) > 1 else set()
        if shared:
            # A plan counts once, however many seeds it was run with.
            means = {task: statistics.fmean(statistics.fmean(plans[p]) for p in shared) for task, plans in lost.items()}
            for task in sorted(means, key=means.__getitem__):
                rows.append((runs[0].model_name, task, f"{100 * means[task]:.2f}", str(len(shared))))
    return Table("robustness", "Robust tasks first: mean loss in points", ("model", "task", "points lost", "plans"),
                 tuple(rows), "Over the plans, that is sets of dropped layers, that all tasks of a model "
                 "were run with.")  # fmt: skip


def runs_table(results: Results) -> Table:
    """Every run, with its digest and what reproduces it."""
    ordered = sorted(results.runs, key=lambda run: (run.model_name, run.task, run.count, run.dropped, run.seed))
    rows = []
    for run in ordered:
        layers = f"--layers {format_layers(run.dropped)} " if run.dropped else ""
        if run.heal.gradual and run.dropped:  # the strategy tells in which order they go
            layers = f"--strategy {run.strategies[0].partition(' (')[0]} --count {run.count} "
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
