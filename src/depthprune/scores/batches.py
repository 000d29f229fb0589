"""Calibration data as padded batches, with the model's prediction targets.

Shapes: B sequences, T tokens.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto import modeling_auto

from depthprune.errors import UserError
from depthprune.pooled.model import PooledClassifier
from depthprune.tasks.data.calibration import Calibration

MASKED_SHARE = 0.15  # BERT's
IGNORED = -100

# What a model's head predicts → the table of classes with such a head.
HEADS = {
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "classes": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
}


def head_of(model: PreTrainedModel) -> str | None:
    """Return what the model's head predicts: `causal`, `masked`, `seq2seq`, `classes`, or None without a head."""
    if isinstance(model, PooledClassifier):
        return "classes"
    name = type(model).__name__
    found = [head for head, table in HEADS.items() if name in table.values()]
    if "masked" in found and not model.config.is_encoder_decoder:
        return "causal" if getattr(model.config, "is_decoder", False) else "masked"
    if "seq2seq" in found:
        return "seq2seq"
    return found[0] if found else None


def is_decoder(model: PreTrainedModel) -> bool:
    """Return whether a model reads from left to right, so that only its last token attends to all others.

    That is an architecture with a causal language modelling head and no masked one, which includes XLNet
    (bidirectional, but with its sentence token last), or a configuration with is_decoder.
    """
    kind = model.config.model_type
    causal = kind in HEADS["causal"] and kind not in HEADS["masked"] and kind not in HEADS["seq2seq"]
    return causal or bool(getattr(model.config, "is_decoder", False))


def sentence_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stack: str) -> str:
    """Return which token represents a sentence: `first`, or `last` for decoders and XLNet."""
    if is_decoder(model) or (model.config.is_encoder_decoder and stack.endswith("decoder")):
        return "last"
    return "first" if tokenizer.cls_token_id is not None else "last"


@dataclass(frozen=True)
class Batch:
    """A padded batch.

    Args:
        inputs: the model's inputs.
        targets: [B] labels of examples, or [B, T] token ids with -100 where nothing is predicted; None if there are
            none.
        pooling: how the model pools a sequence into one vector: `mean`, `cls`, `max`, …, or several of them.
    """

    inputs: dict[str, Tensor]
    targets: Tensor | None
    pooling: tuple[str, ...] = ("mean",)


class Batches(Sequence[Batch]):
    """The batches of a sample, built when they are needed.

    Examples are sorted by length, which saves padding; the order of the batches is random, by the seed, so that the
    first ones are a fair sample. Blocks of text all have the same length.

    Args:
        calibration: the sample.
        model: its head determines the targets.
        tokenizer: the model's.
        batch_size: sequences per batch.
        predict: whether targets are needed; if so, the input of a masked language model is masked.
        pooling: the model's pooling modes (`pooling.read_pooling`).
    """

    def __init__(
        self,
        calibration: Calibration,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        *,
        predict: bool = True,
        pooling: tuple[str, ...] = ("mean",),
    ):
        if batch_size < 1:
            raise UserError(f"--batch-size {batch_size} is too small; give 1 or more")
        self._calibration, self._tokenizer, self._model, self._predict = calibration, tokenizer, model, predict
        self._head, self._pooling = head_of(model), pooling
        lengths = [len(row) for row in calibration.ids]
        order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
        parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        shuffled = np.random.default_rng(calibration.options.seed).permutation(len(parts))
        self._parts = [parts[i] for i in shuffled]
        if self._head == "masked" and tokenizer.mask_token_id is None:
            self._head = None

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: Any) -> Any:
        return self._make(self._parts[index])

    def __iter__(self) -> Iterator[Batch]:
        return (self._make(part) for part in self._parts)

    @property
    def inputs(self) -> Sequence[dict[str, Tensor]]:
        """The batches without their targets."""
        return _Inputs(self)

    @property
    def head(self) -> str | None:
        """What the model's head predicts."""
        return self._head

    def _make(self, part: list[int]) -> Batch:
        calibration, device = self._calibration, self._model.device
        rows = [calibration.ids[i] for i in part]
        pad = self._tokenizer.pad_token_id
        pad = pad if isinstance(pad, int) else 0
        left = self._tokenizer.padding_side == "left"
        ids_BT = torch.full((len(rows), max(map(len, rows))), pad, dtype=torch.long)
        mask_BT = torch.zeros_like(ids_BT)
        types_BT = torch.zeros_like(ids_BT)
        for i, row in enumerate(rows):
            at = slice(ids_BT.shape[1] - len(row), None) if left else slice(0, len(row))
            ids_BT[i, at] = torch.from_numpy(row.astype(np.int64))
            mask_BT[i, at] = 1
            if calibration.types is not None:
                types_BT[i, at] = torch.from_numpy(calibration.types[part[i]].astype(np.int64))
        targets = self._targets(part, ids_BT, mask_BT)
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
        if calibration.types is not None:
            inputs["token_type_ids"] = types_BT
        if self._model.config.is_encoder_decoder and self._head != "classes":
            inputs, targets = self._halves(ids_BT, mask_BT)
        takes = inspect.signature(self._model.forward).parameters
        if left and is_decoder(self._model) and "position_ids" in takes:
            inputs["position_ids"] = (mask_BT.cumsum(-1) - 1).clamp_min(0)
        if "use_cache" in takes:
            inputs["use_cache"] = False  # pyright: ignore[reportArgumentType]
        placed = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}
        return Batch(placed, None if targets is None else targets.to(device), self._pooling)

    def _targets(self, part: list[int], ids_BT: Tensor, mask_BT: Tensor) -> Tensor | None:
        """Return the targets; for a masked language model, mask `ids_BT` in place."""
        labels = self._calibration.labels
        if not self._predict:
            return None
        if self._head == "classes":
            return None if labels is None else torch.tensor([labels[i] for i in part])
        if self._head == "causal":
            return ids_BT.masked_fill(mask_BT == 0, IGNORED)
        if self._head != "masked":
            return None
        targets_BT = torch.full_like(ids_BT, IGNORED)
        mask = self._tokenizer.mask_token_id
        assert isinstance(mask, int)
        special = torch.tensor(sorted(set(self._tokenizer.all_special_ids)))
        for i, row in enumerate(part):  # a row's mask does not depend on its batch
            places = ((mask_BT[i] == 1) & ~torch.isin(ids_BT[i], special)).nonzero().flatten()
            count = min(len(places), max(1, round(MASKED_SHARE * len(places))))
            shuffled = np.random.default_rng([self._calibration.options.seed, row]).permutation(len(places))[:count]
            chosen = places[torch.from_numpy(np.sort(shuffled))]
            targets_BT[i, chosen] = ids_BT[i, chosen]
            ids_BT[i, chosen] = mask
        return targets_BT

    def _halves(self, ids_BT: Tensor, mask_BT: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Give the first half of the tokens to the encoder, and let the decoder predict the rest (prefix LM)."""
        half = max(1, ids_BT.shape[1] // 2)
        targets = ids_BT[:, half:].masked_fill(mask_BT[:, half:] == 0, IGNORED)
        config = self._model.config
        first = config.decoder_start_token_id
        first = config.bos_token_id if first is None else first
        start = torch.full_like(ids_BT[:, :1], 0 if first is None else first)
        decoder = torch.cat([start, ids_BT[:, half:-1]], dim=1)
        inputs = {"input_ids": ids_BT[:, :half], "attention_mask": mask_BT[:, :half], "decoder_input_ids": decoder}
        return inputs, targets


class _Inputs(Sequence):
    def __init__(self, batches: Batches):
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: Any) -> Any:
        return self._batches[index].inputs
