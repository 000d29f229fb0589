"""The commands that supply the runs which a claim has too few of. No torch.

They repeat the recipe, data and model of a run in the store where there is one; `MODEL` is its folder.
"""

from collections.abc import Sequence
from dataclasses import replace

from depthprune.reporting.pairs import plain
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


def supplied(need: str, commands: Sequence[str], there: Sequence[str] = ()) -> str:
    """Say what a claim needs, what of it is there, and which commands supply the rest."""
    return "; ".join([need, *there]) + f". To supply it: {'; '.join(commands)}"


def example(results: Results, model: str | None = None) -> Run | None:
    """Return a run whose model and recipe new ones should have: of a model's, if one is named by its identity."""
    some = [run for run in results.runs if plain(run) and not run.baseline and (model is None or run.model == model)]
    return min(some, key=lambda run: (run.seed, run.task, run.digest), default=None)


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
    return command(replace(run, task=task or run.task), drop)


def _count(strategy: str, share: float, depth: int) -> int:
    """Return the count nearest to a share of the layers that a strategy can drop."""
    counts = possible_counts(strategy, depth) if strategy in registry.names() else range(1, depth)
    return min(counts, key=lambda count: (abs(count - share * depth), count), default=1)


def analysis_commands(results: Results, kind: str, *, missing: Sequence[str]) -> list[str]:
    """Return the commands of an analysis of the fine-tuned models of some roles.

    Args:
        kind: `probe` or `similarity`.
        missing: of `HUB`.
    """
    run = example(results)
    task = run.task if run is not None else "mrpc"
    data = run.data_options.get("dataset") if run is not None else None
    found = []
    for role in missing:
        found.append(run_command(results, None, on_hub=role))
        before = f"{HUB[role]} " if kind == "similarity" else ""
        where = f" --dataset {data}" if data else ""
        found.append(f"depthprune {kind} {before}CHECKPOINT --task {task}{where} --store STORE")
    return found
