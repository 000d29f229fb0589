"""Turn a task's rows into token ids, once per data set, tokenizer and length.

The result is cached in the process and on the disk (`token_cache`), under a fingerprint of our own: the one that
`datasets` would derive changes with the tokenizer's internal state.
"""

import hashlib
from typing import TYPE_CHECKING, Any

from depthprune.tasks.base import TaskData
from depthprune.tasks.token_cache import kept

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Encoded = dict[str, "Dataset"]

_cache: dict[str, Encoded] = {}


def encode(data: TaskData, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Encoded:
    """Tokenise every split of `data`.

    Args:
        data: the task with its rows.
        tokenizer: of the model.
        max_length: tokens to which a row is cut, special tokens included.

    Returns:
        Split → rows with what the model takes (`input_ids`, …), `labels` (numbers of the head's outputs),
        and `length` in tokens; not padded.
    """
    key = _fingerprint(data, tokenizer, max_length)
    if key not in _cache:
        given = {"data": data, "tokenizer": tokenizer, "max_length": max_length}
        _cache[key] = {
            split: _tokenised(rows, f"{key}{_short_hash(split)}", given) for split, rows in data.splits.items()
        }
    return _cache[key]


def _tokenised(rows: "Dataset", name: str, given: dict[str, Any]) -> "Dataset":
    def make(file: str | None) -> "Dataset":
        return rows.map(
            _encode_rows,
            batched=True,
            remove_columns=rows.column_names,
            fn_kwargs=given,
            cache_file_name=file,
            new_fingerprint=name,
        )

    return kept(name, make)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _encode_rows(rows: dict[str, list], data: TaskData, tokenizer: Any, max_length: int) -> dict[str, list]:
    texts = [rows[column] for column in data.task.text_columns]
    encoded = tokenizer(*texts, truncation=True, max_length=max_length)
    encoded["labels"] = [data.task.output_of(label) for label in rows[data.task.label_column]]
    encoded["length"] = [len(ids) for ids in encoded["input_ids"]]
    return dict(encoded)


def _fingerprint(data: TaskData, tokenizer: Any, max_length: int) -> str:
    digest = hashlib.sha256(f"{data.fingerprint} {data.task} {max_length} {type(tokenizer).__name__}".encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # The vocabulary alone would not tell two normalisers apart; the slow tokenizers have no serialised form.
    padded_free = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    digest.update(padded_free.encode())
    return digest.hexdigest()[:24]
