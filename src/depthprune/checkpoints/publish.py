"""Write what accompanies the weights of a checkpoint, whether it was cut as bytes or saved from memory. No torch.

These are the files copied from the source (`companions.py`), `depthprune.json` with the history, and the model card.
The card is written last, since it says how the checkpoint was proved.
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from depthprune.checkpoints.card import CARD_FILE, model_card
from depthprune.checkpoints.companions import beside, card_of, copy_files, copy_others
from depthprune.checkpoints.history import PROVENANCE_FILE
from depthprune.result_file import replace_json
from depthprune.sources import ModelSource


def write_beside_weights(
    folder: Path,
    *,
    source: ModelSource,
    history: Mapping[str, Any],
    name: str,
    config: Mapping[str, Any],
    prove: Callable[[], str],
    root: Path | None = None,
    parameters: tuple[int, int] | None = None,
    command: str | None = None,
    training: str | None = None,
    task_kept: bool = False,
    library: str = "transformers",
    without: tuple[str, ...] = (),
) -> str:
    """Write companion files, history and card into a folder that already has weights and config.json.

    Args:
        folder: before it is renamed to its target.
        source: what the checkpoint was made from.
        history: content of `depthprune.json`.
        name: what the card calls the checkpoint.
        config: its config.json.
        prove: proves the folder, complete but for the card, and says how, as a sentence without a full stop.
        root: the sentence-transformers folder around `source`, if there is one.
        parameters, command, training, task_kept, library: see `card.model_card`.
        without: patterns of companions that are not copied, since the folder has its own.

    Returns:
        What `prove` said.

    Raises:
        LoadError: if a file beside the weights is a symbolic link that points out of the source's folder.
    """
    whole, python = root or source.path, source.trust_remote_code
    inside = folder / source.path.relative_to(whole)
    if root is not None:
        copy_others(root, folder, transformer=source.path, python=python)
    if root != source.path:  # otherwise the companions include them
        names = beside(source.path, python=python)
        copy_files(source.path, inside, [name for name in names if not any(fnmatch(name, one) for one in without)])
    replace_json(inside / PROVENANCE_FILE, history)
    source_card = card_of(whole)
    proof = prove()
    card = model_card(
        history,
        name=name,
        config=config,
        source_card=source_card,
        parameters=parameters,
        command=command,
        proof=proof,
        training=training,
        task_kept=task_kept,
        library=library,
        made_from=source.name if source.commit is not None else source.title,
        on_hub=source.commit is not None,
    )
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return proof
