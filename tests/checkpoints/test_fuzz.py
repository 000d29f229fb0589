"""Headers and indexes at random: they are refused with a LoadError, or what is read is true of the bytes.

By default a few hundred tries in each of the four tests, the same ones every time. Others every time, 100,000 in all:

    DEPTHPRUNE_FUZZ_TRIES=25000 python -m pytest tests/checkpoints/test_fuzz.py --log-cli-level=INFO

The number of tries that were made, and how they ended, is logged.
"""

import json
import logging
import os
import shutil
import struct
from collections import Counter
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from depthprune.checkpoints.layout import INDEX_FILE, SINGLE_FILE, Checkpoint, read_checkpoint
from depthprune.errors import LoadError

TRIES = os.environ.get("DEPTHPRUNE_FUZZ_TRIES")
fuzz = settings(
    max_examples=int(TRIES or 200),
    derandomize=TRIES is None,
    database=None,
    deadline=None,  # a busy machine is not a failure
    suppress_health_check=[HealthCheck.too_slow],
)

# What the format says of an element, written down a second time: bits.
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}
BITS |= {"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F4": 4, "F6_E2M3": 6}
BITS |= {"F6_E3M2": 6, "C64": 64, "F64": 64, "I64": 64, "U64": 64}


class Obj(list):
    """A JSON object as a list of pairs, so that a key can stand in it twice."""


names = st.sampled_from(["a", "b", "h.0.w", "h.1.w", "", "é", "__metadata__", "dtype"]) | st.text(max_size=5)
numbers = st.sampled_from([0, 1, 2, 8, -1, 1 << 31, 1 << 53, 1 << 63, 1 << 64, 10**30]) | st.integers(-20, 99)
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | names | st.sampled_from([*BITS, "F7", "f32"]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(names, inner), max_size=3).map(Obj),
    max_leaves=5,
)


def text_of(value: Any) -> str:
    """Write JSON; unlike `json.dumps`, keys that stand twice."""
    if isinstance(value, Obj):
        return "{" + ",".join(f"{json.dumps(key)}:{text_of(inner)}" for key, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text_of, value)) + "]"
    return json.dumps(value)


@st.composite
def valid_headers(draw: st.DrawFn) -> tuple[Obj, int]:
    """Make a header that is right, and the number of bytes behind it."""
    header, at = Obj(), 0
    for name in draw(st.lists(names.filter(lambda name: name != "__metadata__"), max_size=4, unique=True)):
        dtype = draw(st.sampled_from(sorted(BITS)))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        if prod(shape) * BITS[dtype] % 8:
            shape.append(4)
        size = prod(shape) * BITS[dtype] // 8
        header.append((name, Obj([("dtype", dtype), ("shape", shape), ("data_offsets", [at, at + size])])))
        at += size
    if draw(st.booleans()):
        header.append(("__metadata__", Obj([("format", "pt")])))
    return Obj(draw(st.permutations(header))), at


def damaged(draw: st.DrawFn, value: Any) -> Any:
    """Change one thing somewhere in a JSON value."""
    if not isinstance(value, list) or not value or draw(st.integers(0, 5)) == 0:
        if isinstance(value, int) and draw(st.booleans()):
            return value + draw(st.sampled_from([-8, -4, -1, 1, 4, 8]))
        return draw(anything)
    at = draw(st.integers(0, len(value) - 1))
    kind = draw(st.sampled_from(["inside", "inside", "inside", "inside", "remove", "twice", "add", "key"]))
    copy = type(value)(value)
    if kind == "remove":
        del copy[at]
    elif kind == "twice":
        copy.append(copy[at])
    elif isinstance(value, Obj):
        key, inner = copy[at]
        if kind == "inside":
            copy[at] = (key, damaged(draw, inner))
        elif kind == "key":
            copy[at] = (draw(names), inner)
        else:
            copy.append((draw(names), draw(anything)))
    elif kind == "add":
        copy.insert(at, draw(anything))
    else:
        copy[at] = damaged(draw, copy[at])
    return copy


PIECES = [
    b'"',
    b"{",
    b"}",
    b"[" * 3000,
    b",",
    b":",
    b"\\",
    b"\\ud800",
    b"\0",
    b"\xff",
    b" ",
    b"NaN",
    b"1e999",
    b"-0",
    b"9" * 5000,
]


def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut bytes off, put some in, or change one."""
    at = draw(st.integers(0, len(content)))
    kind = draw(st.sampled_from(["cut", "put in", "change", "append", "length"]))
    if kind == "cut":
        return content[:at]
    if kind == "put in":
        return content[:at] + draw(st.sampled_from(PIECES)) + content[at:]
    if kind == "append":
        return content + draw(st.binary(min_size=1, max_size=9))
    if kind == "length":
        return struct.pack("<Q", draw(st.integers(0, (1 << 64) - 1) | st.integers(0, 200))) + content[8:]
    return content[:at] + draw(st.binary(min_size=1, max_size=1)) + content[at + 1 :]


def file_of(header: str | bytes, num_bytes: int) -> bytes:
    text = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return struct.pack("<Q", len(text)) + text + bytes(i % 251 for i in range(num_bytes))


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Make a file: right, slightly wrong, or random."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200) | st.binary(max_size=200).map(lambda text: file_of(text, 0)))
    header, num_bytes = draw(valid_headers())
    for _ in range(draw(st.integers(0, 2))):
        header = damaged(draw, header)
    content = file_of(text_of(header), num_bytes)
    return damaged_bytes(draw, content) if draw(st.integers(0, 3)) == 0 else content


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model"


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def read_or_refused(folder: Path) -> Checkpoint | None:
    """Read a checkpoint that may be broken; check what holds of either answer."""
    try:
        checkpoint = read_checkpoint(folder)
    except LoadError as error:
        message = str(error)
        assert str(folder) in message and ";" in message and "\n" not in message and len(message) < 600
        return None
    for file in {tensor.file for tensor in checkpoint.tensors.values()}:
        assert Path(os.path.realpath(file)).parent == folder
        ranges = sorted((t.start, t.start + t.num_bytes) for t in checkpoint.tensors.values() if t.file == file)
        assert ranges[0][0] > 8 and ranges[-1][1] == file.stat().st_size
        assert all(end == start for (_, end), (start, _) in pairwise(ranges))
    for name, tensor in checkpoint.tensors.items():
        assert name == tensor.name and all(type(size) is int and size >= 0 for size in tensor.shape)
        assert tensor.num_bytes * 8 == prod(tensor.shape) * BITS[tensor.dtype]
    assert all(isinstance(text, str) for pair in checkpoint.metadata.items() for text in pair)
    json.dumps([[*checkpoint.tensors], checkpoint.metadata], ensure_ascii=False).encode()  # can be written again
    return checkpoint


def bytes_in(checkpoint: Checkpoint) -> dict[str, tuple[tuple[int, ...], bytes]]:
    """Return name → shape and bytes."""
    files = {tensor.file: tensor.file.read_bytes() for tensor in checkpoint.tensors.values()}
    return {
        name: (tensor.shape, files[tensor.file][tensor.start : tensor.start + tensor.num_bytes])
        for name, tensor in checkpoint.tensors.items()
    }


def upstream(content: bytes) -> dict[str, tuple[tuple[int, ...], bytes]] | None:
    """Return what the format's own reader makes of a file, or None where it refuses it."""
    try:
        found = safetensors.deserialize(content)
    except safetensors.SafetensorError:
        return None
    return {name: (tuple(entry["shape"]), bytes(entry["data"])) for name, entry in found}


def loses_something(content: bytes) -> bool:
    """Tell whether a header that the format's own reader takes has a key twice, or fields the format does not know."""
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        keys = [key for key, _ in pairs]
        found |= len(set(keys)) < len(keys) or ("data_offsets" in keys and len(keys) != 3)

    json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]], object_pairs_hook=look)
    return found


def log_counts(counts: Counter[str]) -> None:
    logging.getLogger(__name__).info("%d tries: %s", counts.total(), dict(counts))


def check_counts(counts: Counter[str]) -> None:
    """A test in which nearly every try is refused, or none, would show little."""
    log_counts(counts)
    assert min(counts["read"], counts["refused"]) > counts.total() / 10


def test_any_file_is_read_as_the_formats_own_reader_does_or_refused(folder):
    counts = Counter()

    @fuzz
    @given(files())
    def attempt(content: bytes) -> None:
        (fresh(folder) / SINGLE_FILE).write_bytes(content)
        read, theirs = read_or_refused(folder), upstream(content)
        if read is not None:
            assert bytes_in(read) == theirs or b"-0" in content  # a nought with a sign is a nought to Python
        else:
            assert theirs is None or loses_something(content)
        counts["refused" if read is None else "read"] += 1

    attempt()
    check_counts(counts)


SHARDS = ("one.safetensors", "two.safetensors", "three.safetensors")
PLACES = (*SHARDS, "link", "way out", "folder", "missing", "../outside", "/etc/hostname", "folder/one", "..", "", "a\0")


@st.composite
def indexes(draw: st.DrawFn) -> tuple[dict[str, bytes], bytes]:
    """Make the files of a checkpoint, and an index: right, slightly wrong, or random."""
    weight_map, contents = Obj(), {}
    for shard in draw(st.lists(st.sampled_from(SHARDS), min_size=1, unique=True)):
        header, num_bytes = draw(valid_headers())
        taken = {name for name, _ in weight_map} if draw(st.integers(0, 9)) else set()
        if taken.isdisjoint(name for name, _ in header):
            contents[shard] = file_of(text_of(header), num_bytes)
            weight_map += [(name, shard) for name, _ in header if name != "__metadata__"]
    index = Obj([("metadata", Obj([("total_size", draw(numbers))])), ("weight_map", weight_map)])
    if weight_map and draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(weight_map) - 1))
        weight_map[at] = (weight_map[at][0], draw(st.sampled_from(PLACES)))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        index = damaged(draw, index)
    text = text_of(index).encode("utf-8", "surrogatepass")
    return contents, damaged_bytes(draw, text) if draw(st.integers(0, 4)) == 0 else text


def test_any_index_is_read_or_refused_and_leads_to_no_file_elsewhere(folder):
    counts = Counter()

    @fuzz
    @given(indexes())
    def attempt(made: tuple[dict[str, bytes], bytes]) -> None:
        contents, index = made
        (fresh(folder) / INDEX_FILE).write_bytes(index)
        (folder / "folder").mkdir()
        for name, content in [*contents.items(), ("../outside", file_of("{}", 0)), ("folder/one", file_of("{}", 0))]:
            (folder / name).write_bytes(content)
        (folder / "link").symlink_to(SHARDS[0])
        (folder / "way out").symlink_to("../outside")

        read = read_or_refused(folder)

        if read is not None:
            assert read.sharded and read.tensors.keys() == json.loads(index)["weight_map"].keys()
        counts["refused" if read is None else "read"] += 1

    attempt()
    check_counts(counts)


shapes = st.lists(st.integers(0, 5), max_size=4)
texts = st.text(max_size=20)
new_names = texts.filter(lambda name: name != "__metadata__")


def random_tensor(dtype: torch.dtype, shape: list[int], seed: int) -> torch.Tensor:
    """Return a tensor of any bits, so of NaN and infinities too; a bool has but two."""
    generator = torch.Generator().manual_seed(seed)
    high = 2 if dtype is torch.bool else 256
    data = torch.randint(0, high, (prod(shape) * dtype.itemsize,), generator=generator, dtype=torch.uint8)
    return data.view(dtype).reshape(shape)


TORCH_NAMES = """float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64
float8_e4m3fn float8_e5m2 float8_e8m0fnu float8_e4m3fnuz float8_e5m2fnuz"""
TORCH_DTYPES = [getattr(torch, name) for name in TORCH_NAMES.split()]
NUMPY_DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8"]


def test_what_torch_saves_is_read_as_it_was_in_one_file_or_several(folder):
    counts = Counter()
    tensors = st.dictionaries(new_names, st.tuples(st.sampled_from(TORCH_DTYPES), shapes), min_size=1, max_size=6)

    @fuzz
    @given(tensors, st.dictionaries(texts, texts, max_size=3), st.integers(1, 3), st.integers(0, 1 << 32))
    def attempt(made: dict[str, tuple[torch.dtype, list[int]]], metadata, parts: int, seed: int) -> None:
        fresh(folder)
        given = {name: random_tensor(*kind, seed + i) for i, (name, kind) in enumerate(made.items())}
        weight_map = {name: SHARDS[i % parts] for i, name in enumerate(given)}
        if parts == 1:
            safetensors.torch.save_file(given, folder / SINGLE_FILE, metadata=metadata)
        else:
            for file in set(weight_map.values()):
                share = {name: tensor for name, tensor in given.items() if weight_map[name] == file}
                safetensors.torch.save_file(share, folder / file, metadata=metadata)
            (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))

        read = read_or_refused(folder)

        assert read is not None and read.metadata == metadata
        assert bytes_in(read) == {
            name: (tuple(tensor.shape), tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
            for name, tensor in given.items()
        }
        counts["read"] += 1

    attempt()
    log_counts(counts)


def test_what_numpy_saves_is_read_as_it_was(folder):
    counts = Counter()

    @fuzz
    @given(st.dictionaries(new_names, st.tuples(st.sampled_from(NUMPY_DTYPES), shapes), max_size=6), st.integers(0, 99))
    def attempt(made: dict[str, tuple[str, list[int]]], seed: int) -> None:
        random = np.random.default_rng(seed)
        given = {name: random.integers(0, 2, shape).astype(dtype) for name, (dtype, shape) in made.items()}
        safetensors.numpy.save_file(given, fresh(folder) / SINGLE_FILE)

        read = read_or_refused(folder)

        assert read is not None
        assert bytes_in(read) == {name: (array.shape, array.tobytes()) for name, array in given.items()}
        counts["read"] += 1

    attempt()
    log_counts(counts)
