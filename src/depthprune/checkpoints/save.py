"""Save a cut model as a plain checkpoint, and prove the files before the folder gets its name.

The saved files are loaded with plain `from_pretrained` and compared, tensor for tensor, with the model in memory. Only
then is the folder renamed to the target, so that a folder of that name is always complete.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from depthprune.arguments import checked
from depthprune.checkpoints.companions import MODULES_FILE
from depthprune.checkpoints.history import PROVENANCE_FILE
from depthprune.checkpoints.layout import file_inside
from depthprune.checkpoints.publish import write_beside_weights
from depthprune.errors import CannotDropError
from depthprune.loading import POOLER
from depthprune.output import whole_folder
from depthprune.pooled.folder import LIBRARY_PARTS, write_head
from depthprune.pooled.model import PooledClassifier
from depthprune.pooled.proof import prove_head
from depthprune.result_file import replace_json
from depthprune.sources import POOLED_HEAD, TOKENIZER_FILES, ModelSource
from depthprune.surgery.modules import REFUSALS, first_line


@checked("save_checkpoint")
def save_checkpoint(
    model: PreTrainedModel,
    target: Path | str,
    *,
    tokenizer_from: Path | str | None = None,
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Save `model` so that plain `from_pretrained` loads it, and prove it.

    Args:
        model: the model, cut or not.
        target: a folder that does not exist or is empty.
        tokenizer_from: a folder to copy the tokenizer's files from, as they are.
        provenance: what goes into `depthprune.json` beside the weights: where the model came from.

    Returns:
        The folder.

    Raises:
        OutputError: if the target exists already, or there is no space.
        CannotDropError: if the saved files do not load back as the same model; nothing is left behind.
    """
    target = Path(target)
    with whole_folder(target, num_bytes=_num_bytes(model)) as partial:
        model.save_pretrained(partial)
        for name in TOKENIZER_FILES:
            if tokenizer_from is not None and (Path(tokenizer_from) / name).is_file():
                shutil.copyfile(file_inside(Path(tokenizer_from), name), partial / name)
        if provenance is not None:
            replace_json(partial / PROVENANCE_FILE, provenance)
        prove_reload(model, partial)
    return target


def save_made(
    model: PreTrainedModel,
    target: Path | str,
    *,
    source: ModelSource,
    provenance: dict[str, Any],
    name: str | None = None,
    parameters: tuple[int, int] | None = None,
    command: str | None = None,
    training: str | None = None,
    task_kept: bool = False,
    root: Path | None = None,
) -> Path:
    """Save a model that was made from `source`, with the files that `drop` would write: companions, card, history.

    Args:
        model: the model to save.
        target: a folder that does not exist or is empty.
        source: what it was made from.
        provenance: content of `depthprune.json`.
        name: what the card calls it; the target's name by default.
        parameters, command, training, task_kept: see `card.model_card`.
        root: the sentence-transformers folder that `source` is the transformer of, and that is written whole. One that
            has the weights at its top is found without, and its card names transformers: a head may have been added.

    Raises:
        OutputError, CannotDropError: see `save_checkpoint`.
        LoadError: if a file beside the weights is a symbolic link that points out of the folder.
    """
    target = Path(target)
    if isinstance(model, PooledClassifier):
        return _save_pooled(
            *(model, target, source, provenance),
            name=name or target.name,
            parameters=parameters,
            command=command,
            training=training,
            task_kept=task_kept,
        )
    library = "transformers" if root is None else "sentence-transformers"
    replaced = root is None and bool(source.config.get(POOLED_HEAD))  # by the head of the model
    root = root or (source.path if (source.path / MODULES_FILE).is_file() and not replaced else None)
    with whole_folder(target, num_bytes=_num_bytes(model)) as partial:
        inside = partial / source.path.relative_to(root or source.path)
        model.save_pretrained(inside)
        write_beside_weights(
            partial,
            source=source,
            history=provenance,
            name=name or target.name,
            config={**source.config, "architectures": [type(model).__name__]},
            prove=lambda: prove_reload(model, inside),
            root=root,
            parameters=parameters,
            command=command,
            training=training,
            task_kept=task_kept,
            library=library,
            without=LIBRARY_PARTS if replaced else (),
        )
    return target


def _save_pooled(
    model: PooledClassifier, target: Path, source: ModelSource, provenance: dict[str, Any], **about: Any
) -> Path:
    """Save a classifier on pooled states as a folder of sentence-transformers; see `save_made`."""
    with whole_folder(target, num_bytes=_num_bytes(model)) as partial:
        body: Any = model.base_model
        body.save_pretrained(partial)
        write_head(partial, model, source=source.path)
        write_beside_weights(
            partial,
            source=source,
            history=provenance,
            config={**source.config, "architectures": [type(body).__name__]},
            prove=lambda: f"{prove_reload(body, partial)}, and {prove_head(model, partial)}",
            without=LIBRARY_PARTS,
            library="sentence-transformers",
            **about,
        )
    return target


def _num_bytes(model: PreTrainedModel) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def prove_reload(model: PreTrainedModel, folder: Path) -> str:
    """Load `folder` with plain `from_pretrained` and compare it with `model`, tensor for tensor.

    Returns:
        How it was proved, as a sentence without a full stop.

    Raises:
        CannotDropError: if a tensor is missing, unexpected or different.
    """
    chosen: Any = type(model)  # with output_loading_info it returns a pair, unlike its annotation
    try:
        again, info = chosen.from_pretrained(folder, dtype="auto", output_loading_info=True)
    except (OSError, *REFUSALS) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the disk, not of the model
        raise CannotDropError(
            f"the checkpoint written for '{model.config.model_type}' does not load back ({first_line(error)}); "
            "nothing was saved"
        ) from None
    before, after = model.state_dict(), again.state_dict()
    # A model that was loaded without a pooler, as its checkpoint had none; the plain class makes a fresh one.
    fresh = {name for name in info["missing_keys"] if name not in before and POOLER in name.split(".")}
    after = {name: tensor for name, tensor in after.items() if name not in fresh}
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if odd := sorted(map(str, set(info[kind]) - fresh)):
            raise CannotDropError(
                f"the checkpoint written for '{model.config.model_type}' does not load back: {kind.replace('_', ' ')} "
                f"{odd[:3]}; nothing was saved, please report it"
            )
    odd = sorted(set(before) ^ set(after)) or [
        name for name in before if not _same_bits(before[name].cpu(), after[name].cpu())
    ]
    if odd:
        raise CannotDropError(
            f"the checkpoint written for '{model.config.model_type}' loads back with another '{odd[0]}'; "
            "nothing was saved, please report it"
        )
    return "plain from_pretrained takes exactly these tensors"


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Compare bits, not values: NaN weights of a diverged training have to be preserved too."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)))
