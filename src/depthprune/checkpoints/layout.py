"""A checkpoint as names and byte ranges: one safetensors file, or several with an index. Tensors are not read.

Neither index nor headers (`header.py`) are trusted: missing, broken or contradictory files and files outside the folder
are refused before anything is done with them. No torch.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from depthprune.checkpoints.header import LARGEST_HEADER, parse_json, read_file, readable, shown
from depthprune.checkpoints.header import LENGTH_BYTES as LENGTH_BYTES
from depthprune.checkpoints.header import StoredTensor as StoredTensor
from depthprune.errors import CannotDropError, LoadError
from depthprune.surgery.stacks import LAYER_INDEX, TensorPrefix

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
DEEP = 200  # layers; building a model with more would take long
# As a module list writes it. "00" and the digits of other scripts are part of a name: int() would make them one of
# these, and two tensors would get one name.


@dataclass(frozen=True)
class Checkpoint:
    """All tensors of a folder, in the order of the files.

    Args:
        tensors: name → its position.
        metadata: of the first file's header, such as `{"format": "pt"}`.
        shard_bytes: data bytes of the largest file, the source's own shard size.
        sharded: whether there is an index.
        stamps: file → inode, size and modification time, by which a later change is noticed.
    """

    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]
    shard_bytes: int
    sharded: bool
    stamps: dict[Path, tuple[int, ...]] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of a folder's safetensors files.

    Raises:
        LoadError: if a file is missing, unreadable, truncated or outside the folder, if a header or the index is
            broken, or if they contradict each other.
    """
    files, weight_map = _files(folder)
    tensors: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    shard_bytes = 0
    stamps = {}
    for file in files:
        stamps[file] = _stamp(file)
        found, notes = read_file(file)
        metadata = metadata or notes
        shard_bytes = max(shard_bytes, sum(tensor.num_bytes for tensor in found))
        for tensor in found:
            if tensor.name in tensors:
                other = tensors[tensor.name].file.name
                raise LoadError(
                    f"{shown(tensor.name)} lies both in '{other}' and in '{file.name}' of '{folder}'; "
                    "download the model again"
                )
            tensors[tensor.name] = tensor
    if weight_map is not None:
        elsewhere = {name for name in weight_map if name in tensors and tensors[name].file.name != weight_map[name]}
        odd = sorted(set(weight_map) ^ set(tensors) | elsewhere)
        if odd:
            raise LoadError(
                f"the index of '{folder}' and its files disagree about {shown(odd[0])}; download the model again"
            )
    return Checkpoint(tensors, metadata, shard_bytes, weight_map is not None, stamps)


def check_unchanged(checkpoint: Checkpoint) -> None:
    """Check that no file has changed since its header was read: the copy would mix two checkpoints.

    Raises:
        LoadError: if one did; the message names the file.
    """
    for file, stamp in checkpoint.stamps.items():
        if _stamp(file) != stamp:
            raise changed(file)


def changed(file: Path) -> LoadError:
    """Return the error for a weights file that changed during a cut."""
    return LoadError(f"'{file}' was changed while it was copied; run again when nothing writes to it")


def _stamp(file: Path) -> tuple[int, ...]:
    with readable(file):
        status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def file_inside(folder: Path, name: str) -> Path:
    """Return the file `name` of a folder, after resolving symbolic links.

    A symbolic link may point to another file of the folder or, from a snapshot in the Hub's cache, to that cache's
    blobs.

    Raises:
        LoadError: if the file is missing, is not a regular file, or lies outside.
    """
    file = folder / name
    with readable(file):
        try:
            real = Path(os.path.realpath(file, strict=True))
        except FileNotFoundError:
            raise LoadError(f"'{file}' is missing, or a link to a file that is; download the model again") from None
        if not stat.S_ISREG(real.stat().st_mode):
            raise LoadError(f"'{file}' is not a file; give the complete folder of a model")
    home = Path(os.path.realpath(folder))
    if not any(real.is_relative_to(place) for place in (home, *_hub_blobs(home))):
        raise LoadError(f"'{file}' is a symbolic link that points out of its folder, to '{real}'; copy the file there")
    return file


def _hub_blobs(folder: Path) -> tuple[Path, ...]:
    """Return where the symbolic links of a Hub snapshot, `models--ORG--NAME/snapshots/COMMIT`, may point.

    That is the model's own blobs or, since huggingface_hub 2, those that all models of the cache share.
    """
    for snapshots in folder.parents:
        if snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--"):
            return snapshots.parent / "blobs", snapshots.parent.parent / "blobs"
    return ()


def _files(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """Return the files with the weights and, where there are several, the index: tensor → name of its file."""
    with readable(folder):
        names = set(os.listdir(folder))
    if SINGLE_FILE in names:
        return [file_inside(folder, SINGLE_FILE)], None
    if INDEX_FILE not in names:
        raise LoadError(f"'{folder}' has neither {SINGLE_FILE} nor {INDEX_FILE}; give a complete folder")
    index = file_inside(folder, INDEX_FILE)
    with readable(index):
        if index.stat().st_size > LARGEST_HEADER:
            raise LoadError(f"the index '{index}' has over {LARGEST_HEADER} bytes; download the model again")
        content = parse_json(index.read_bytes(), f"the index '{index}'")
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    names_files = isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values())
    if not names_files or not weight_map:
        raise LoadError(f"the index '{index}' has no weight_map from tensors to files; download the model again")
    needed = sorted(set(weight_map.values()))
    for name in needed:
        # By the rules of Windows too: a checkpoint must mean the same on every system.
        if name in ("", ".", "..") or PureWindowsPath(name).name != name or not name.isprintable():
            raise LoadError(f"the index '{index}' names {shown(name)}, not a file of its folder; do not use it")
        if name not in names:
            raise LoadError(f"'{folder}' lacks the shard {shown(name)} that its index names; download the model again")
    return [file_inside(folder, name) for name in needed], weight_map


def split_name(name: str) -> tuple[str, int, str] | None:
    """Split a tensor's name at its outermost index into prefix, index and rest; None if there is no index.

    >>> split_name("model.layers.3.experts.0.weight")
    ('model.layers', 3, 'experts.0.weight')
    """
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if LAYER_INDEX.fullmatch(part)), 0)
    return (".".join(parts[:at]), int(parts[at]), ".".join(parts[at + 1 :])) if 0 < at < len(parts) - 1 else None


def find_prefix(names: Iterable[str], depth: int) -> TensorPrefix:
    """Return the prefix before the layer index in the names of a checkpoint's tensors.

    A stack is a group of names `PREFIX.0.…` to `PREFIX.(depth - 1).…` that is not inside another.

    >>> find_prefix(["h.0.w", "h.1.w", "h.1.experts.0.w", "h.1.experts.1.w", "norm.w"], depth=2)
    'h'

    Raises:
        CannotDropError: if there is no such prefix, or more than one.
    """
    indices: dict[str, set[int]] = defaultdict(set)
    for name in names:
        split = split_name(name)
        if split is not None:
            indices[split[0]].add(split[1])
    found = sorted(prefix for prefix, seen in indices.items() if len(seen) == depth == max(seen) + 1)
    if len(found) == 1:
        return TensorPrefix(found[0])
    if found:
        several = ", ".join(shown(prefix).strip("'") for prefix in found[:4])
        raise CannotDropError(f"the checkpoint has several stacks of {depth} layers ({several}); one is needed")
    first = sorted(indices.items())[:4]
    counts = ", ".join(shown(prefix).strip("'") + f" {len(seen)}" for prefix, seen in first)
    raise CannotDropError(
        f"the configuration says {depth} layers and the weights have no stack of that depth ({counts or 'no stack'}); "
        "download the model again"
    )


def check_depths(depths: Mapping[str, int], names: Iterable[str]) -> None:
    """Check that the weights have about as many layers as the configuration, before a model of that depth is built.

    Fewer may be right: layers can share their weights, and some entries look like a depth and are not.

    Args:
        depths: entry of the configuration → depth.
        names: of the tensors.

    Raises:
        LoadError: if they do not; the message names the entry.
    """
    deep = {key: depth for key, depth in depths.items() if depth > DEEP}
    if not deep:
        return
    seen: dict[str, set[int]] = defaultdict(set)
    for split in filter(None, map(split_name, names)):
        seen[split[0]].add(split[1])
    longest = max(map(len, seen.values()), default=0)
    for key, depth in deep.items():
        if depth > longest:
            raise LoadError(
                f"config.json says {key} = {depth}, and no list of layers in the weights has more than {longest}; "
                "download the model again"
            )


def shards(sizes: dict[str, int], shard_bytes: int) -> Iterator[list[str]]:
    """Distribute tensors over shards in order, none larger than `shard_bytes` unless a single tensor is.

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
