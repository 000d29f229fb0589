"""Turn a task's rows into token ids, once per data set, tokenizer and length.

The result is cached in the process and on the disk (`token_cache`), under a fingerprint of our own: the one that
`datasets` would derive changes with the tokenizer's internal state.
"""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from depthprune.errors import LoadError
from depthprune.tasks.base import TaskData
from depthprune.tasks.data.token_cache import kept

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

    def encode_rows(rows: dict[str, list]) -> dict[str, list]:
        texts: Any = [rows[column] for column in data.task.text_columns]
        encoded = tokenizer(*texts, truncation=True, max_length=max_length)
        encoded["labels"] = [data.task.output_of(label) for label in rows[data.task.label_column]]
        encoded["length"] = [len(ids) for ids in encoded["input_ids"]]
        return dict(encoded)

    return _encoded(data, tokenizer, max_length, lambda: encode_rows)


def encode_blocks(data: TaskData, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Encoded:
    """Cut the running text of every split into blocks of `max_length` tokens, for a causal language model.

    The lines of a split are one text; a block begins with the token that the tokenizer begins a text with, if there is
    one. What does not fill a last block is left out.

    Returns:
        Split → blocks with `input_ids`, `attention_mask`, `labels` (the ids again, which the model shifts) and
        `length`; all as long as each other.

    Raises:
        LoadError: a split is shorter than a block.
    """
    if tokenizer.pad_token is None:  # blocks need no padding, and what would pad them asks for the token all the same
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    from datasets import Features, List, Value

    column = data.task.text_columns[0]
    ids, mask = List(Value("int32")), List(Value("int8"))
    features = Features({"input_ids": ids, "attention_mask": mask, "labels": ids, "length": Value("int32")})
    encoded = _encoded(data, tokenizer, max_length, lambda: _Blocks(column, tokenizer, max_length), features)
    for split, rows in encoded.items():
        if not len(rows):
            raise LoadError(
                f"the text of '{split}' is shorter than one block of {max_length} tokens; give more text, or a smaller "
                "--max-length"
            )
    return encoded


class _Blocks:
    """Cuts lines of text into blocks; what is left of one batch of lines begins the next one's first block."""

    def __init__(self, column: str, tokenizer: "PreTrainedTokenizerBase", length: int):
        self._column, self._tokenizer, self._length = column, tokenizer, length
        first: Any = tokenizer.bos_token_id
        begins = first is not None and tokenizer("a")["input_ids"][:1] == [first]
        self._start: list[Any] = [first] if begins else []
        self._left: list[int] = []

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        text = "".join(f"{line}\n" for line in rows[self._column])
        ids = self._left + self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        size = self._length - len(self._start)
        whole = len(ids) // size * size
        self._left = ids[whole:]
        blocks = [self._start + ids[at : at + size] for at in range(0, whole, size)]
        mask = [[1] * self._length] * len(blocks)
        return {
            "input_ids": blocks,
            "attention_mask": mask,
            "labels": blocks,
            "length": [self._length] * len(blocks),
        }


def _encoded(
    data: TaskData,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    function: Callable[[], Any],
    features: Any = None,
) -> Encoded:
    """Return what was encoded before, or encode every split.

    Args:
        function: makes what encodes a batch of a split's rows, anew for each split.
        features: types of the columns, where a batch may give no row to tell them from.
    """
    key = _fingerprint(data, tokenizer, max_length)
    if key not in _cache:
        _cache[key] = {
            split: _tokenised(rows, f"{key}{_short_hash(split)}", function, features)
            for split, rows in data.splits.items()
        }
    return _cache[key]


def _tokenised(rows: "Dataset", name: str, function: Callable[[], Any], features: Any) -> "Dataset":
    def make(file: str | None) -> "Dataset":
        return rows.map(
            function(),
            batched=True,
            remove_columns=rows.column_names,
            features=features,
            cache_file_name=file,
            new_fingerprint=name,
        )

    return kept(name, make)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _fingerprint(data: TaskData, tokenizer: Any, max_length: int) -> str:
    digest = hashlib.sha256(f"{data.fingerprint} {data.task} {max_length} {type(tokenizer).__name__}".encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # The vocabulary alone would not tell two normalisers apart; the slow tokenizers have no serialised form.
    padded_free = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    digest.update(padded_free.encode())
    return digest.hexdigest()[:24]
