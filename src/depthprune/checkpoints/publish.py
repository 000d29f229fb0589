"""The one writer of what lies beside the weights of a checkpoint, cut as bytes or saved from memory. No torch.

That is every file of the source that travels (`companions.py`), `depthprune.json` with the history, and the card. The
card is last: it says how the checkpoint was proved, so there is none before there is a proof.
"""

from collections.abc import Callable, Mapping
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
) -> str:
    """Write companions, history and card into a folder that has its weights and its config.json already.

    Args:
        folder: not yet under its final name.
        source: what the checkpoint was made from.
        history: content of `depthprune.json`.
        name: what the card calls the checkpoint.
        config: its config.json.
        prove: proves the folder, complete but for the card, and says how, as a sentence without its full stop.
        root: the sentence-transformers folder that `source` is the transformer of, if it is.
        parameters, command, training, task_kept, library: see `card.model_card`.

    Returns:
        What `prove` said.

    Raises:
        LoadError: a file beside the weights is a link that leaves the source's folder.
    """
    whole, python = root or source.path, source.trust_remote_code
    inside = folder / source.path.relative_to(whole)
    if root is not None:
        copy_others(root, folder, transformer=source.path, python=python)
    if root != source.path:  # else these are among the others
        copy_files(source.path, inside, beside(source.path, python=python))
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
