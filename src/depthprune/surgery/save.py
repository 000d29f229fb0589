"""Write a cut model as a plain checkpoint, and prove the files before they get their name.

Everything goes to `TARGET.partial` first. The proof reads what was written back with plain `from_pretrained` and
compares it, tensor for tensor, with the model in memory. Only then is the folder renamed, so a folder with the
target's name is always complete.
"""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from depthprune.errors import CannotDropError, OutputError
from depthprune.loading import TOKENIZER_FILES

HEADROOM = 1.02  # headers, configuration and tokenizer beside the tensors


def check_target(target: Path) -> None:
    """Refuse a target that holds something, or a place where nothing can be written.

    Raises:
        OutputError: with what to do instead.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise OutputError(f"the output '{target}' exists and is not an empty folder; choose another or remove it")
    parent = nearest_folder(target)
    if not parent.is_dir():
        raise OutputError(f"the output '{target}' cannot be made: '{parent}' is not a folder; choose another")


def nearest_folder(path: Path) -> Path:
    """Return the nearest ancestor of `path` that exists."""
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent


def save_checkpoint(
    model: PreTrainedModel, target: Path | str, *, tokenizer_from: Path | None = None, provenance: dict[str, Any]
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
        OutputError: the target is taken, or there is no space.
        CannotDropError: what was written does not load back as the same model; nothing is left behind.
    """
    target = Path(target)
    check_target(target)
    _check_space(target, sum(t.nbytes for t in model.state_dict().values()))
    partial = target.absolute().with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an earlier run that was killed
    made = _missing_parents(partial)
    try:
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        for name in TOKENIZER_FILES:
            if tokenizer_from is not None and (tokenizer_from / name).is_file():
                shutil.copyfile(tokenizer_from / name, partial / name)
        (partial / "depthprune.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
        prove_reload(model, partial)
        if target.is_dir():
            target.rmdir()
        partial.rename(target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        # safetensors reports a full disk as an error of its own that carries only the text
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise OutputError(f"no space left for '{target}'; free some or choose another --output") from None
        raise
    return target


def prove_reload(model: PreTrainedModel, folder: Path) -> None:
    """Load `folder` with plain `from_pretrained` and compare it with `model`, tensor for tensor.

    Raises:
        CannotDropError: a tensor is missing, left over, or another.
    """
    again, info = type(model).from_pretrained(folder, dtype="auto", output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            raise CannotDropError(
                f"the checkpoint written for '{model.config.model_type}' does not load back: {kind.replace('_', ' ')} "
                f"{sorted(map(str, info[kind]))[:3]}; nothing was saved, please report it"
            )
    before, after = model.state_dict(), again.state_dict()
    odd = sorted(set(before) ^ set(after)) or [
        name for name in before if not torch.equal(before[name].cpu(), after[name].cpu())
    ]
    if odd:
        raise CannotDropError(
            f"the checkpoint written for '{model.config.model_type}' loads back with another '{odd[0]}'; "
            "nothing was saved, please report it"
        )


def _check_space(target: Path, tensor_bytes: int) -> None:
    free = shutil.disk_usage(nearest_folder(target)).free
    if free < tensor_bytes * HEADROOM:
        raise OutputError(
            f"no space left for '{target}': the checkpoint takes {tensor_bytes / 1e6:.0f} MB and {free / 1e6:.0f} MB "
            "are free; free some or choose another --output"
        )


def _missing_parents(path: Path) -> list[Path]:
    """Return the folders above `path` that would have to be made, the innermost first."""
    missing = []
    for parent in path.parents:
        if parent.exists():
            break
        missing.append(parent)
    return missing
