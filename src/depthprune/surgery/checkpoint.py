"""Safetensors files as names and byte ranges: no torch, no tensor is ever read.

A file is eight bytes that hold the length of the header, the header (JSON: name → dtype, shape, offsets), then the
data. A checkpoint is one such file, or several with an index (https://github.com/huggingface/safetensors).
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthprune.errors import CannotDropError, LoadError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
LENGTH_BYTES = 8
LARGEST_HEADER = 100_000_000  # as the format's own reader has it


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's bytes lie.

    Args:
        name: as the file has it.
        file: the file.
        dtype: the format's name, such as `BF16`.
        shape: of the tensor.
        start: offset of its first byte in the file.
        num_bytes: how many.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """All tensors of a folder, in the order of the files.

    Args:
        tensors: name → where it lies.
        metadata: of the first file's header, such as `{"format": "pt"}`.
        shard_bytes: data bytes of the largest file, the source's own shard size.
        sharded: whether there is an index.
    """

    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]
    shard_bytes: int
    sharded: bool


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of a folder's safetensors files.

    Raises:
        LoadError: a file is missing or cut short, a header is broken, or index and files disagree.
    """
    files, weight_map = _files(folder)
    tensors: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    shard_bytes = 0
    for file in files:
        header, data_start = _read_header(file)
        metadata = metadata or header.pop("__metadata__", {})
        header.pop("__metadata__", None)
        found = [_stored(name, file, entry, data_start) for name, entry in header.items()]
        shard_bytes = max(shard_bytes, sum(tensor.num_bytes for tensor in found))
        _check_size(file, found, data_start)
        tensors |= {tensor.name: tensor for tensor in sorted(found, key=lambda t: t.start)}
    if weight_map is not None:
        elsewhere = {name for name in weight_map if name in tensors and tensors[name].file.name != weight_map[name]}
        odd = sorted(set(weight_map) ^ set(tensors) | elsewhere)
        if odd:
            raise LoadError(f"the index of '{folder}' and its files disagree about '{odd[0]}'; fetch the model again")
    return Checkpoint(tensors, metadata, shard_bytes, weight_map is not None)


def _files(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    index = folder / INDEX_FILE
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE], None
    if not index.is_file():
        raise LoadError(f"'{folder}' has neither {SINGLE_FILE} nor {INDEX_FILE}; give a complete folder")
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise LoadError(f"the index '{index}' cannot be read ({error}); fetch the model again") from None
    files = [folder / name for name in sorted(set(weight_map.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise LoadError(f"'{folder}' lacks the shard '{missing[0]}' that its index names; fetch the model again")
    return files, weight_map


def _read_header(file: Path) -> tuple[dict[str, Any], int]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        if size < LENGTH_BYTES or not 2 <= length <= min(size - LENGTH_BYTES, LARGEST_HEADER):
            raise LoadError(f"'{file}' is not a safetensors file, or cut short; fetch it again")
        try:
            header = json.loads(stream.read(length))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise LoadError(f"the header of '{file}' is not JSON ({error}); fetch it again") from None
    return header, LENGTH_BYTES + length


def _stored(name: str, file: Path, entry: dict[str, Any], data_start: int) -> StoredTensor:
    try:
        begin, end = entry["data_offsets"]
        return StoredTensor(name, file, entry["dtype"], tuple(entry["shape"]), data_start + begin, end - begin)
    except (KeyError, TypeError, ValueError):
        raise LoadError(f"the header of '{file}' does not describe '{name}'; fetch the model again") from None


def _check_size(file: Path, tensors: list[StoredTensor], data_start: int) -> None:
    """The format has no gaps: the tensors follow each other and end with the file."""
    at = data_start
    for tensor in sorted(tensors, key=lambda t: (t.start, t.num_bytes)):
        if tensor.start != at or tensor.num_bytes < 0:
            raise LoadError(f"the header of '{file}' leaves a gap before '{tensor.name}'; fetch it again")
        at += tensor.num_bytes
    if at != file.stat().st_size:
        raise LoadError(f"'{file}' has {file.stat().st_size} bytes and its header speaks of {at}; fetch it again")


def split_name(name: str) -> tuple[str, int, str] | None:
    """Split a tensor's name at its outermost index: what stands before it, the index, what follows; None without one.

    >>> split_name("model.layers.3.experts.0.weight")
    ('model.layers', 3, 'experts.0.weight')
    """
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdigit()), 0)
    return (".".join(parts[:at]), int(parts[at]), ".".join(parts[at + 1 :])) if 0 < at < len(parts) - 1 else None


def find_prefix(names: Iterable[str], depth: int) -> str:
    """Return what stands before the layer index in the names of a checkpoint's tensors.

    A stack is a group of names `PREFIX.0.…` to `PREFIX.(depth - 1).…` that is not inside another.

    >>> find_prefix(["h.0.w", "h.1.w", "h.1.experts.0.w", "h.1.experts.1.w", "norm.w"], depth=2)
    'h'

    Raises:
        CannotDropError: there is none, or more than one.
    """
    indices: dict[str, set[int]] = defaultdict(set)
    for name in names:
        split = split_name(name)
        if split is not None:
            indices[split[0]].add(split[1])
    found = sorted(prefix for prefix, seen in indices.items() if seen == set(range(depth)))
    if len(found) == 1:
        return found[0]
    if found:
        raise CannotDropError(
            f"the checkpoint has several stacks of {depth} layers ({', '.join(found)}); one is needed"
        )
    counts = ", ".join(f"{prefix} {len(seen)}" for prefix, seen in sorted(indices.items())[:4])
    raise CannotDropError(
        f"the configuration says {depth} layers and the weights have no stack of that depth ({counts or 'no stack'}); "
        "fetch the model again"
    )


def shards(sizes: dict[str, int], shard_bytes: int) -> Iterator[list[str]]:
    """Fill shards in order, none larger than `shard_bytes` unless one tensor is.

    >>> list(shards({"a": 3, "b": 2, "c": 4}, shard_bytes=5))
    [['a', 'b'], ['c']]
    """
    current: list[str] = []
    filled = 0
    for name, size in sizes.items():
        if current and filled + size > shard_bytes:
            yield current
            current, filled = [], 0
        current.append(name)
        filled += size
    if current:
        yield current
