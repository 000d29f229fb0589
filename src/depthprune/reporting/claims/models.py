"""The paper's claims that compare models: BERT, XLNet, RoBERTa and distilled ones. No torch."""

from collections.abc import Sequence

from depthprune.reporting.claims.differences import Difference, difference
from depthprune.reporting.claims.evidence import (
    BY_POSITION,
    NOT_TESTABLE,
    Cell,
    Claim,
    against_others,
    by_strategy,
    cell,
    claim,
    comparable,
    judged,
    mean,
    said,
    tasks_of,
)
from depthprune.reporting.claims.missing import found_as, run_command, supplied
from depthprune.reporting.claims.roles import BERT, OTHER, playing, stood_in
from depthprune.reporting.claims.strategies import kept_cell
from depthprune.reporting.pairs import base_name, family, loss, names_of_family, plain
from depthprune.reporting.results import Results, Run

CLAIMS: list[Claim] = []
NEARLY = 0.1  # shares of layers that are compared between models differ by no more: contribution does not choose K
THREE = ("symmetric", "contribution")
POINT = 0.01  # by less, a strategy is about as good as another


def models_of(results: Results, wanted: str) -> list[str]:
    """Return the identities of a family's models; only the paper's own where there are such."""
    names = names_of_family(wanted, [(run.model_name, run.model_type) for run in results.runs])
    return sorted(
        {r.model for r in results.runs if r.model_name in names and family(r.model_name, r.model_type) == wanted}
    )


@claim(CLAIMS, 5, "Symmetric suits BERT and hurts XLNet; contribution the reverse")
def _symmetric(results: Results) -> tuple[str, str]:
    """For it, all four (intersection-union): what suits a model loses less than a point to top, what hurts more than 0.

    Against it: one of the four is the other way round, with Bonferroni's correction for four. Where top was not run,
    the mean of the alternate strategies stands for it. One cell a pair of a BERT and a model of another objective
    (`roles.py`) at like shares.
    """
    named = [(run.model_name, run.model_type) for run in results.runs]
    bert, xlnet = (_with_both(results, _models(results, playing(role, named))) for role in (BERT, OTHER))
    cells = []
    for one in bert:
        for other in xlnet:
            if abs(_share(one) - _share(other)) <= NEARLY:
                parts = [_suits(one, "symmetric", "contribution"), _suits(other, "contribution", "symmetric")]
                if all(found for _, found in parts):
                    cells.append(cell("; ".join(text for text, _ in parts), [d for _, found in parts for d in found]))
    if not cells:
        need = "needs symmetric, contribution and top (or an alternate strategy) on a BERT and on a model of another "
        need += "objective, such as XLNet, at like shares of the layers, with the same seeds"
        there = [said(groups) for groups in (*bert, *xlnet)] if not (bert and xlnet) else []
        return NOT_TESTABLE, supplied(need, _three_commands(results, bert=bert, xlnet=xlnet), there)
    who = stood_in(*([_named(groups) for groups in some] for some in (bert, xlnet)))
    verdict, evidence = judged(cells, "")
    return verdict, f"{who}.\n{evidence}" if who else evidence


def _three_commands(results: Results, **there: list[dict[str, list[Run]]]) -> list[str]:
    """Return what runs the three strategies on what is missing: in the store where it has such a model."""
    found = []
    for role, groups in there.items():
        where = found_as(results, role)
        found += [run_command(results, name, 1 / 3, **where) for name in (*THREE, "top") if not groups]
    return found or [run_command(results, name, 1 / 3) for name in (*THREE, "top")]


def _models(results: Results, names: Sequence[str]) -> list[str]:
    return sorted({run.model for run in results.runs if run.model_name in names})


def _named(groups: dict[str, list[Run]]) -> tuple[str, str | None]:
    run = next(iter(groups.values()))[0]
    return run.model_name, run.model_type


def _with_both(results: Results, models: Sequence[str]) -> list[dict[str, list[Run]]]:
    """Return, for each of the models and counts, the runs by strategy: those of the claim, and what is beside them."""
    found = []
    for (model, _, _), groups in by_strategy(results, share=lambda s: True).items():
        if model not in models:
            continue
        bare: dict[str, dict[str, Run]] = {}  # a threshold makes no other strategy, only another count
        for name, runs in groups.items():
            bare.setdefault(base_name(name), {}).update({run.digest: run for run in runs})
        beside = ("top",) if "top" in bare else ("even-alternate", "odd-alternate")
        compared = comparable({name: list(runs.values()) for name, runs in bare.items()}, (*THREE, *beside))
        if set(THREE) < set(compared):
            found.append(compared)
    return found


def _share(groups: dict[str, list[Run]]) -> float:
    run = next(iter(groups.values()))[0]
    return run.count / run.depth


def _suits(groups: dict[str, list[Run]], good: str, bad: str) -> tuple[str, list[Difference]]:
    """Return what is above 0 if `good` is about as good as what is beside it and `bad` is worse; words first."""
    beside = [name for name in groups if name not in THREE]
    level = [(-1 / len(beside), groups[name]) for name in beside]
    kept = against_others(groups[good], level)
    lost = {
        task: [[(-weight, run) for weight, run in terms] for terms in seeds]
        for task, seeds in against_others(groups[bad], level).items()
    }
    if not kept or not lost:
        return said(groups), []
    words = "top" if beside == ["top"] else f"the mean of {' and '.join(beside)}"
    gain, gap = difference(kept), difference(lost)
    text = f"{said(groups)}; {good} − {words} {gain.words}, {words} − {bad} {gap.words}, {gap.basis}"
    return text, [difference(kept, more=POINT), gap]


@claim(CLAIMS, 9, "An already distilled model can lose a third of its layers")
def _distilled(results: Results) -> tuple[str, str]:
    """For it: with top, the pruned score minus 97.5 % of the full one is above 0 on average over tasks; below: against.

    The paper's DistilBERT keeps 99.1 %. One cell a model and recipe.
    """
    cells: list[Cell] = []
    models = models_of(results, "distilled")
    for (model, _, _), groups in by_strategy(results, share=lambda s: 0.3 <= s <= 0.36).items():
        found = kept_cell(results, groups.get("top", [])) if model in models else None
        if found is not None:
            compared = comparable(groups, BY_POSITION)
            best = max(compared, key=lambda name: mean(compared[name]))
            more = (
                f"; the best by position is {best} with {100 * mean(compared[best]):.2f}" if len(compared) > 1 else ""
            )
            cells.append(Cell(found.text + more, found.supports, found.against))
    where = found_as(results, "distilled")
    need = "needs a distilled model, named as one, and top with a third of its layers gone"
    return judged(cells, supplied(need, [run_command(results, "top", 1 / 3, **where)]))


@claim(CLAIMS, 11, "RoBERTa is more robust than BERT")
def _roberta(results: Results) -> tuple[str, str]:
    """For it: with half of the layers dropped from the top RoBERTa loses less than BERT; more: against it.

    A loss is the full model's score minus the pruned one's; tasks, data, recipe and seeds are those that both have.
    One cell a pair of models.
    """
    roberta, bert = (_halves(results, models_of(results, name)) for name in ("roberta", "bert"))
    cells = [found for one in roberta for other in bert if (found := _less_lost(results, one, other)) is not None]
    need = "needs top with half of the layers dropped on RoBERTa and on BERT, the same task and recipe"
    there = [f"{r[0].model_name} loses {100 * _lost(r):.2f} on {tasks_of(r)}" for r in (*roberta, *bert)]
    tasks = [run.task for some in (*roberta, *bert) for run in some]
    wanted = [role for role, some in (("roberta", roberta), ("bert", bert)) if not some] or ["bert"]
    more = {"task": tasks[0]} if tasks else {}
    return judged(
        cells,
        supplied(need, [run_command(results, "top", 1 / 2, **found_as(results, r), **more) for r in wanted], there),
    )


def _less_lost(results: Results, roberta: Sequence[Run], bert: Sequence[Run]) -> Cell | None:
    tables = [{(r.task, r.recipe, r.seed): r for r in runs} for runs in (bert, roberta)]
    shared = sorted(set(tables[0]) & set(tables[1]))
    strata: dict[str, list[list[tuple[float, Run]]]] = {}
    for key in shared:
        terms = []
        for weight, table in zip((1.0, -1.0), tables, strict=True):
            full = results.full_of(table[key])
            assert full is not None
            terms += [(weight, full), (-weight, table[key])]
        strata.setdefault(key[0], []).append(terms)
    if not strata:
        return None
    found = difference(strata)
    pair = [[table[key] for key in shared] for table in tables[::-1]]
    losses = ", ".join(f"{r[0].model_name} loses {100 * _lost(r):.2f}" for r in pair)
    text = f"half of the layers, top, {tasks_of(pair[0])}: {losses}; the difference is {found.words}, {found.basis}"
    return cell(text, [found])


def _halves(results: Results, models: Sequence[str]) -> list[list[Run]]:
    """Return the runs of each model without the top half of its layers, full score known."""
    runs = [r for r in results.pruned() if "top" in r.strategies and results.full_of(r) is not None and plain(r)]
    runs = [run for run in runs if 0.45 <= run.count / run.depth <= 0.55]
    groups = [[run for run in runs if run.model == model] for model in models]
    return [group for group in groups if group]


def _lost(runs: Sequence[Run]) -> float:
    """Return the mean over tasks of what was lost, each task the mean over its runs."""
    tasks = {run.task: [loss(r) for r in runs if r.task == run.task] for run in runs}
    return sum(sum(some) / len(some) for some in tasks.values()) / len(tasks)
