"""Write safetensors files from byte ranges of other files, and compare them afterwards. No torch."""

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from depthprune.checkpoints.cut import Cut, Piece
from depthprune.checkpoints.header import readable
from depthprune.checkpoints.layout import LENGTH_BYTES, SINGLE_FILE, changed, shards
from depthprune.errors import CannotDropError
from depthprune.surgery.sized_tensors import merged_bytes

ALIGNMENT = 8
CHUNK = 1 << 26
COMPARED = 1 << 22


def layout(cut: Cut) -> dict[str, list[str]]:
    """Return file name → names of its tensors, sharded by the source's own shard size."""
    sizes = {name: piece.num_bytes for name, piece in cut.kept.items()}
    groups = list(shards(sizes, cut.checkpoint.shard_bytes)) if cut.checkpoint.sharded else [list(sizes)]
    if len(groups) == 1:
        return {SINGLE_FILE: groups[0]}
    return {f"model-{i + 1:05}-of-{len(groups):05}.safetensors": names for i, names in enumerate(groups)}


def write_file(file: Path, names: list[str], cut: Cut, *, empty: bool = False) -> None:
    """Write one safetensors file; with `empty`, its header and a sparse file of the right length."""
    ordered = _ordered(names, cut)
    header: dict[str, Any] = {"__metadata__": cut.checkpoint.metadata} if cut.checkpoint.metadata else {}
    at = 0
    for name in ordered:
        piece = cut.kept[name]
        header[name] = {
            "dtype": piece.tensor.dtype,
            "shape": piece.shape,
            "data_offsets": [at, at + piece.num_bytes],
        }
        at += piece.num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        stream.flush()
        if empty:
            stream.truncate(LENGTH_BYTES + len(text) + at)
            return
        for name in ordered:
            copy_piece(cut.kept[name], stream.fileno())


def _ordered(names: list[str], cut: Cut) -> list[str]:
    """Order tensors by the size of their dtype, largest first, as safetensors does, so that each is aligned."""
    return sorted(names, key=lambda name: -_item_bytes(cut.kept[name]))


def copy_piece(piece: Piece, target: int) -> None:
    """Append a tensor's bytes to the open file `target`, with copy_file_range where the system has it."""
    with readable(piece.tensor.file):
        opened = piece.tensor.file.open("rb")
    with opened as stream:
        if piece.part is not None and piece.part.merged:
            _write_all(target, _merged(piece, stream))
            return
        if piece.part is not None and piece.part.dimension > 0:  # many small ranges: gather them in memory
            _gather(piece, stream, target)
            return
        for at, left in piece.ranges():
            while left:
                try:
                    done = os.copy_file_range(stream.fileno(), target, min(left, CHUNK), at)
                except (AttributeError, OSError):  # not on this system, or not between these file systems
                    done = os.write(target, _read(stream, piece, at, min(left, CHUNK)))
                if done == 0:
                    raise changed(piece.tensor.file)
                at, left = at + done, left - done


def _gather(piece: Piece, stream: BinaryIO, target: int) -> None:
    block = bytearray()
    for at, length in piece.ranges():
        block += _read(stream, piece, at, length)
        if len(block) >= COMPARED:
            _write_all(target, block)
            block = bytearray()
    _write_all(target, block)


def _merged(piece: Piece, stream: BinaryIO) -> bytes:
    tensor = piece.tensor
    assert piece.part is not None
    return merged_bytes(_read(stream, piece, tensor.start, tensor.num_bytes), tensor.dtype, piece.part, tensor.name)


def _read(stream: BinaryIO, piece: Piece, at: int, length: int) -> bytes:
    with readable(piece.tensor.file):
        stream.seek(at)
        block = stream.read(length)
    if len(block) < length:
        raise changed(piece.tensor.file)
    return block


def _write_all(target: int, block: bytes | bytearray) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(target, view) :]


def compare_file(file: Path, names: list[str], cut: Cut) -> None:
    """Compare every byte of a written file with the source.

    Raises:
        CannotDropError: if a tensor differs.
    """
    with file.open("rb") as written:
        written.seek(LENGTH_BYTES + int.from_bytes(written.read(LENGTH_BYTES), "little"))
        for name in _ordered(names, cut):
            piece = cut.kept[name]
            with piece.tensor.file.open("rb") as source:
                if piece.part is not None and piece.part.merged:
                    _compare(_merged(piece, source), written.read(piece.num_bytes), name, file)
                    continue
                for at, left in piece.ranges():
                    source.seek(at)
                    while left:
                        size = min(left, COMPARED)
                        _compare(source.read(size), written.read(size), name, file)
                        left -= size


def _compare(expected: bytes, found: bytes, name: str, file: Path) -> None:
    if found != expected:
        raise CannotDropError(f"'{name}' in '{file.name}' differs from the source; try again")


def _item_bytes(piece: Piece) -> int:
    count = 1
    for size in piece.tensor.shape:
        count *= size
    return piece.tensor.num_bytes // count if count else 0
