"""A model to analyse, as far as it is known before its weights are read."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from depthprune.checkpoints.history import ONLY_STACK, PROVENANCE_FILE, present_layers, read_history
from depthprune.errors import LoadError, UserError
from depthprune.experiments.store.store import readable_record
from depthprune.loading import load_config, load_tokenizer, model_class
from depthprune.plan import choose_stack, format_layers
from depthprune.sources import ModelSource
from depthprune.tasks import TaskData
from depthprune.tasks.base import KINDS
from depthprune.tasks.metrics.base import FRACTION, HIGHER
from depthprune.tasks.metrics.base import registry as metrics

if TYPE_CHECKING:
    from datasets import Dataset

CHECKPOINT = "model"  # the folder name of every checkpoint in a store


@dataclass(frozen=True)
class Analysed:
    """A model without its weights.

    Args:
        source: where it is.
        tokenizer: the model's, with a padding token.
        depth: of its only stack.
        hidden_size: None if the configuration does not have it.
        token: `first` or `last`: the token that represents a sentence.
    """

    source: ModelSource
    tokenizer: Any
    depth: int
    hidden_size: int | None
    token: str

    def describe(self) -> dict[str, Any]:
        """Return the entries of a record about it."""
        return {
            "name": telling_name(self.source),
            "identity": self.source.identity,
            "model_type": self.source.config["model_type"],
            "depth": self.depth,
        }


def look_at(source: ModelSource) -> Analysed:
    """Read a model's configuration and tokenizer.

    Raises:
        UserError: if the model has several stacks, or one of the two models cannot be read.
    """
    from depthprune.scores.batches import sentence_token
    from depthprune.surgery.modules import probe_stacks
    from depthprune.surgery.stacks import depths_of

    stacks = probe_stacks(*model_class(source))
    advice = "an analysis is of a model with one"
    stack = stacks[choose_stack(depths_of(stacks), model=f"'{source.name}'", advice=advice)]
    tokenizer = load_tokenizer(source)
    config = load_config(source)
    bare: Any = SimpleNamespace(config=config)  # the token is known from the configuration; no weights are needed yet
    token = sentence_token(bare, tokenizer, stack.name)
    if tokenizer.pad_token is None:  # any token will do, since padding is masked
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return Analysed(source, tokenizer, stack.depth, getattr(config, "hidden_size", None), token)


def check_alike(before: Analysed, after: Analysed) -> None:
    """Check that the layers of two models correspond.

    Raises:
        UserError: if the architecture, depth or hidden size differs.
    """
    names = f"'{before.source.name}'", f"'{after.source.name}'"
    kinds = [one.source.config["model_type"] for one in (before, after)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"{names[1]} is a {kinds[1]} and {names[0]} a {kinds[0]}; give a model and the same model after fine-tuning"
        )
    if before.depth != after.depth:
        raise UserError(
            f"{names[1]} has {after.depth} layers and {names[0]} has {before.depth}, so they do not pair up; "
            "give the full fine-tuned model (depthprune run without a strategy saves it), not a pruned one"
        )
    if before.hidden_size != after.hidden_size:
        raise UserError(
            f"{names[1]} has the hidden size {after.hidden_size} and {names[0]} {before.hidden_size}; "
            "give a model and the same model after fine-tuning"
        )


def check_task(data: TaskData, *, probed: bool = False) -> TaskData:
    """Return the rows of a task that layers can be analysed on.

    Refuse a task whose rows have no labels, and for a probe one whose metric draws no curve of shares.

    Raises:
        UserError: it is such a task.
    """
    if data.task.kind not in KINDS:
        raise UserError(f"layers are analysed on a classification or a regression, and '{data.task.name}' is neither")
    part = metrics.get(data.task.metrics[0])
    if probed and (part.unit, part.better) != (FRACTION, HIGHER):
        raise UserError(
            f"probes are scored by a fraction that is better the higher it is, and '{part.name}' is not; give another "
            "--metric"
        )
    return data


def check_same_tokens(pair: list[Analysed], rows: list["Dataset"], split: str) -> None:
    """Check that rows are the same tokens for both models.

    Raises:
        UserError: if they do not; the message names the first such row.
    """
    ids = [some["input_ids"][:] for some in rows]
    odd = next((i for i, (one, other) in enumerate(zip(*ids, strict=True)) if one != other), None)
    if odd is not None:
        raise UserError(
            f"row {odd} of '{split}' has other tokens in '{pair[1].source.name}' than in '{pair[0].source.name}'; "
            "put the same tokenizer into both folders"
        )


def telling_name(source: ModelSource) -> str:
    """Return a model's name for a record: its Hub id or its folder's name, never a path.

    Checkpoints in a store are all called `model`; the history beside them has their source.
    """
    folder = Path(os.path.abspath(source.path))
    if source.commit is not None or folder.name != CHECKPOINT or not (folder / PROVENANCE_FILE).is_file():
        return source.title
    try:
        cuts = read_history(folder)
        present = present_layers(cuts)
        made = json.loads((folder / PROVENANCE_FILE).read_text(encoding="utf-8"))
    except LoadError:
        return folder.name
    record = readable_record(folder.parent / "record.json") or {}
    name = cuts[0].get("source") if cuts else record.get("environment", {}).get("model")
    for stack, (depth, left) in present.items():
        which = f"{stack}=" if stack != ONLY_STACK else ""
        name = f"{name} without layers {which}{format_layers(sorted(set(range(depth)) - set(left)))}"
    task = f" fine-tuned on {made['task']}" if "task" in made else ""
    return f"{name or folder.name}{task}"
