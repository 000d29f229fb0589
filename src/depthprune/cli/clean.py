"""`depthprune clean`: free the disk space that a store no longer needs."""

from pathlib import Path
from typing import Annotated

import typer

from depthprune.cli import options

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")]
All = Annotated[bool, typer.Option("--all", help="Remove the best checkpoint of each model and task too.")]


def clean(store: options.StoreFolder = Path("runs"), dry_run: DryRun = False, everything: All = False) -> None:
    """Remove checkpoints and caches of a store, and what killed runs left; records are kept.

    The best checkpoint of each model and task is kept too, unless --all is given. A run without its checkpoint is
    trained again when the checkpoint is needed.
    """
    from depthprune.cli.display import console
    from depthprune.errors import UserError
    from depthprune.experiments.store.cleaning import best_checkpoints, removable, remove
    from depthprune.experiments.store.store import Store
    from depthprune.tasks.data.token_cache import token_folder

    if not store.is_dir():
        raise UserError(f"there is no store '{store}'; give --store FOLDER, where runs were recorded")
    runs = Store(store)
    items = removable(runs, everything=everything, caches=(token_folder(),))
    for item in items:
        console.print(
            f"{_megabytes(item.num_bytes)}  {item.kind}: {item.path}", highlight=False, markup=False, soft_wrap=True
        )
    kept = [] if everything else sorted(best_checkpoints(runs))
    for digest in kept:
        console.print(
            f"kept (the best of its model and task): {runs.model_folder(digest)}", highlight=False, soft_wrap=True
        )
    if not dry_run:
        remove(items)
    total = _megabytes(sum(item.num_bytes for item in items)).strip()
    console.print(f"{'would free' if dry_run else 'freed'} {total}; records are kept", highlight=False)


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:9.1f} MB"
