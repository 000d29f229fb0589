"""The commands that supply the runs which a claim has too few of. No torch.

They repeat the recipe, data and model of a run in the store where there is one, which is called by its name.
"""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from depthprune.reporting.claims.roles import BERT, OTHER, playing
from depthprune.reporting.pairs import names_of_family, plain
from depthprune.reporting.results import Results, Run
from depthprune.reporting.settings import command
from depthprune.strategies import possible_counts, registry

DEPTH = 12  # of the paper's models
HUB = {  # role → a model on the Hub that plays it
    "bert": "google-bert/bert-base-cased",
    "xlnet": "xlnet/xlnet-base-cased",
    "roberta": "FacebookAI/roberta-base",
    "distilled": "distilbert/distilbert-base-uncased",
}
DISTILLED_DEPTH = 6
PLAYED = {"bert": BERT, "xlnet": OTHER}


def supplied(need: str, commands: Sequence[str], there: Sequence[str] = ()) -> str:
    """Say what a claim needs, what of it is there, and which commands supply the rest."""
    return "; ".join([need, *there]) + f". To supply it: {'; '.join(commands)}"


def example(results: Results, model: str | None = None) -> Run | None:
    """Return a run whose model and recipe new ones should have: of the model with this identity, or with most runs."""
    some = [run for run in results.runs if plain(run) and not run.baseline and (model is None or run.model == model)]
    of_model = Counter(run.model for run in some)
    return min(some, key=lambda run: (-of_model[run.model], run.model, run.seed, run.task, run.digest), default=None)


def found_as(results: Results, role: str) -> dict[str, Any]:
    """Return where a model that plays a role in `HUB` is: its identity in the store, or else the role."""
    runs = [run for run in results.runs if not run.baseline]
    models = [(run.model_name, run.model_type) for run in runs]
    names = playing(PLAYED[role], models) if role in PLAYED else names_of_family(role, models)
    known = Counter(run.model for run in runs if run.model_name in names)
    return {"model": min(known, key=lambda model: (-known[model], model))} if known else {"on_hub": role}


def run_command(
    results: Results,
    strategy: str | None,
    share: float = 0.0,
    *,
    model: str | None = None,
    on_hub: str | None = None,
    task: str | None = None,
) -> str:
    """Return the command of a run that is missing, which runs its full model too.

    Args:
        strategy: that drops layers; None for the full model alone.
        share: of the layers.
        model: the identity of one of the store's; any of them if left out.
        on_hub: a role in `HUB`, whose model is taken instead.
        task: if not the one that the store has.
    """
    run = example(results, model)
    depth = DISTILLED_DEPTH if on_hub == "distilled" else DEPTH if on_hub or run is None else run.depth
    drop = ("--strategy", strategy, "--count", str(_count(strategy, share, depth))) if strategy is not None else ()
    if run is None:
        words = ["depthprune", "run", HUB[on_hub or "bert"], "--task", task or "mrpc", *drop]
        return " ".join(words)
    if on_hub is not None:
        run = replace(run, model=f"hub:{HUB[on_hub]}")
    return named(command(replace(run, task=task or run.task), drop), run)


def named(text: str, run: Run) -> str:
    """Return a command with the model's name in the place of `MODEL`: a store does not know where its folder is."""
    return text.replace(" MODEL ", f" {shlex.quote(run.model_name)} ", 1)


def _count(strategy: str, share: float, depth: int) -> int:
    """Return the count nearest to a share of the layers that a strategy can drop."""
    counts = possible_counts(strategy, depth) if strategy in registry.names() else range(1, depth)
    return min(counts, key=lambda count: (abs(count - share * depth), count), default=1)


def analysis_commands(results: Results, kind: str, *, missing: Sequence[str]) -> list[str]:
    """Return the commands of an analysis of the fine-tuned models of some roles.

    Args:
        kind: `probe` or `similarity`.
        missing: roles in `HUB`; CHECKPOINT is what the run of each leaves.
    """
    found = []
    for role in missing:
        where = found_as(results, role)
        run = example(results, where.get("model"))
        task = run.task if run is not None else "mrpc"
        data = run.data_options.get("dataset") if run is not None else None
        whole = run_command(results, None, **where)
        model = whole.removeprefix("depthprune run ").partition(" --")[0]
        before = f"{model} " if kind == "similarity" else ""
        rows = f" --dataset {data}" if data else ""
        found += [whole, f"depthprune {kind} {before}CHECKPOINT --task {task}{rows} --token first,mean --store STORE"]
    return found
