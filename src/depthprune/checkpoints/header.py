"""Read and check the header of one safetensors file; nothing in it is trusted. No torch.

A file is eight bytes that hold the length of the header, the header (JSON: name → dtype, shape, offsets), then the data
(https://github.com/huggingface/safetensors). The tensors that `read_file` returns lie inside the file, without gap or
overlap, and their sizes are dtype × shape. It refuses whatever safetensors refuses, and also what safetensors accepts
although a part would be lost: a duplicate key, an entry with unknown fields.
"""

import json
import os
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from depthprune.errors import LoadError
from depthprune.sources import what_is_odd

LENGTH_BYTES = 8
LARGEST_HEADER = 100_000_000  # bytes, the limit of safetensors
LARGEST_COUNT = (1 << 64) - 1  # elements, likewise
LFS_POINTER = b"version https://git-lfs"

# Bits of an element. Elements of 4 and 6 bits are packed; their tensors still end on a byte boundary.
DTYPE_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's position in its file.

    Args:
        name: as in the file.
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


def read_file(file: Path) -> tuple[list[StoredTensor], dict[str, str]]:
    """Return the tensors of a file, in the order of their bytes, and its metadata.

    Raises:
        LoadError: if the file cannot be read, is truncated or broken.
    """
    with readable(file), file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(len(LFS_POINTER))
        length = int.from_bytes(start[:LENGTH_BYTES], "little")
        if start == LFS_POINTER:
            raise LoadError(f"'{file}' is a pointer of Git LFS and not the weights; run 'git lfs pull' in its folder")
        if size < LENGTH_BYTES or length < 2:
            raise LoadError(f"'{file}' is {'empty' if not size else 'not a safetensors file'}; download it again")
        if length > size - LENGTH_BYTES:
            raise LoadError(
                f"'{file}' has {size} bytes and would have a header of {length}: it is not a safetensors file, or cut "
                "short; download it again"
            )
        if length > LARGEST_HEADER:
            raise LoadError(f"the header of '{file}' has {length} bytes, over {LARGEST_HEADER}; download it again")
        stream.seek(LENGTH_BYTES)
        header = parse_json(stream.read(length), f"the header of '{file}'")
    if not isinstance(header, dict):
        raise LoadError(f"the header of '{file}' is not an object; download it again")
    metadata = header.pop("__metadata__", None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise LoadError(f"the __metadata__ of '{file}' does not map text to text; download it again")
    at = LENGTH_BYTES + length
    found = [_stored(name, file, entry, at, size) for name, entry in header.items()]
    found.sort(key=lambda tensor: (tensor.start, tensor.num_bytes))
    for tensor in found:  # the format allows no gaps: tensors are contiguous up to the end of the file
        if tensor.start != at:
            _refuse(file, tensor.name, "overlaps another" if tensor.start < at else "leaves a gap before it")
        at += tensor.num_bytes
    if at != size:
        raise LoadError(f"'{file}' has {size} bytes and its header speaks of {at}; download it again")
    return found, metadata


def _stored(name: str, file: Path, entry: Any, data_start: int, size: int) -> StoredTensor:
    if not isinstance(entry, dict) or entry.keys() != FIELDS:
        _refuse(file, name, f"needs {', '.join(sorted(FIELDS))} and no more")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise LoadError(
            f"{shown(name)} in '{file}' is of the unknown dtype {shown(dtype)}; download it again, or, if it is new to "
            "the format, use a depthprune that knows it"
        )
    count = _count(shape)
    if count is None:
        _refuse(file, name, f"has the impossible shape {shown(shape)}")
    # type() and not isinstance(): true and false are ints to Python
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(at) is int for at in offsets):
        _refuse(file, name, f"has the impossible data_offsets {shown(offsets)}")
    begin, end = offsets
    if not 0 <= begin <= end:
        _refuse(file, name, f"has the impossible data_offsets {shown(offsets)}")
    if end > size - data_start:
        raise LoadError(
            f"{shown(name)} ends beyond the {size} bytes of '{file}': the file is broken or truncated; "
            "download it again"
        )
    if (end - begin) * 8 != count * DTYPE_BITS[dtype]:
        _refuse(file, name, f"has {end - begin} bytes, which is not {dtype} × {shown(shape)}")
    return StoredTensor(name, file, dtype, tuple(shape), data_start + begin, end - begin)


def _count(shape: Any) -> int | None:
    """Return the number of elements, or None if this is not a shape; stops before the product grows without bound."""
    if not isinstance(shape, list):
        return None
    count = 1
    for size in shape:
        if type(size) is not int or not 0 <= size <= LARGEST_COUNT:
            return None
        count *= size
        if count > LARGEST_COUNT:
            return None
    return count


def parse_json(text: bytes, what: str) -> Any:
    """Read JSON as safetensors does: UTF-8, no NaN. Duplicate keys, of which Python takes the last, are refused."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
        if b"\\u" in text:  # an escape can encode half a surrogate pair, which cannot be written again
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{what} cannot be read ({error}); download it again") from None
    return value


def parse_config(text: bytes, what: str) -> Any:
    """Read JSON that is not a header and will be traversed: deeper nesting than in a configuration is refused."""
    value = parse_json(text, what)
    odd = what_is_odd(value)
    if odd is not None:
        raise LoadError(f"{what} cannot be used: {odd}; download it again")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"{shown(twice)} occurs twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn an OSError while reading `path` into one line."""
    try:
        yield
    except OSError as error:
        raise LoadError(f"'{path}' cannot be read ({error.strerror or error}); fix that or give another") from None


def _refuse(file: Path, name: str, what: str) -> NoReturn:
    raise LoadError(f"the header of '{file}' is broken: {shown(name)} {what}; download it again")


def shown(value: Any) -> str:
    """Return a value from a file for a message: on one line, shortened."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = 100
