"""Run a model over tokenised rows, padded a batch at a time: what the kinds of evaluation have in common. No torch."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from depthprune.errors import UserError
from depthprune.evaluation.base import OnStep

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def outputs(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: "Dataset",
    *,
    batch_size: int,
    on_step: OnStep | None = None,
) -> Iterator[tuple[list[int], dict[str, list], Any]]:
    """Yield (numbers of the rows, the rows themselves, the model's logits in float32) for each batch.

    The longest rows go first, to save padding; `in_order` brings what is made of them back into the order of the rows.
    """
    import torch

    lengths = rows["length"][:]
    order = sorted(range(len(rows)), key=lengths.__getitem__, reverse=True)
    was_training = model.training
    model.eval()
    starts = range(0, len(order), batch_size)
    try:
        for step, start in enumerate(starts):
            numbers = order[start : start + batch_size]
            batch = rows[numbers]
            with torch.inference_mode():
                logits = model(**collate(tokenizer, batch, device=model.device)).logits.float()
            yield numbers, batch, logits
            if on_step is not None:
                on_step(step + 1, len(starts))
    finally:
        model.train(was_training)


def in_order(numbers: Sequence[int], values: Sequence[Any]) -> list[Any]:
    """Return values in the order of the rows that they belong to.

    >>> in_order([2, 0, 1], ["c", "a", "b"])
    ['a', 'b', 'c']
    """
    return [value for _, value in sorted(zip(numbers, values, strict=True), key=lambda pair: pair[0])]


def refuse_nan(rows: int, number: int) -> None:
    """Refuse to score a model that puts out NaN: the first class, or 0, would be counted as its answer.

    Raises:
        UserError: it did for `rows` of `number` rows.
    """
    if rows:
        raise UserError(
            f"the model puts out no number (NaN) for {rows} of {number} rows, so it has no score; its weights are "
            "broken, or its training diverged: lower --learning-rate, or give --precision float32"
        )


def collate(tokenizer: "PreTrainedTokenizerBase", batch: dict[str, list], *, device: Any) -> dict[str, Any]:
    """Pad a slice of tokenised rows to its longest row and put it on `device`; labels and lengths are left out."""
    inputs = {name: values for name, values in batch.items() if name not in ("labels", "length")}
    return dict(tokenizer.pad(inputs, return_tensors="pt").to(device))
