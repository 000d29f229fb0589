"""Reading headers and indexes: what is refused, in one line each, and what must not be."""

# long because most of it is tables of bad input

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import save_file

from depthprune.checkpoints.header import DTYPE_BITS, LARGEST_HEADER
from depthprune.checkpoints.layout import INDEX_FILE, SINGLE_FILE, find_prefix, read_checkpoint, split_name
from depthprune.errors import CannotDropError, LoadError
from without_root import folder_without_root

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def entry(begin: object = 0, end: object = 8, *, dtype: object = "F32", shape: object = (2,)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def raw(header: dict | str | bytes, data_bytes: int = 8) -> bytes:
    text = json.dumps(header) if isinstance(header, dict) else header
    text = text.encode() if isinstance(text, str) else text
    return len(text).to_bytes(8, "little") + text + bytes(data_bytes)


def single(folder: Path, header: dict | str | bytes, data_bytes: int = 8) -> Path:
    (folder / SINGLE_FILE).write_bytes(raw(header, data_bytes))
    return folder


def sharded(folder: Path) -> Path:
    """Write a good checkpoint of two files."""
    (folder / FIRST).write_bytes(raw({"a": entry()}))
    (folder / SECOND).write_bytes(raw({"b": entry()}))
    return index(folder, {"weight_map": {"a": FIRST, "b": SECOND}})


def index(folder: Path, content: object) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / INDEX_FILE).write_text(text)
    return folder


def mapped(folder: Path, **weight_map: object) -> Path:
    return index(sharded(folder), {"weight_map": {"a": FIRST, "b": SECOND} | weight_map})


def refused(folder: Path) -> str:
    with pytest.raises(LoadError) as stop:
        read_checkpoint(folder)
    message = str(stop.value)
    assert "\n" not in message and len(message) < 400
    return message


A_ENTRY = '"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}'
HEADERS: dict[str, tuple[dict | str | bytes, int, str]] = {
    "not JSON": ("{'a'}", 0, "cannot be read (Expecting property name"),
    "not UTF-8": (b'{"\xff": 1}', 0, "can't decode byte 0xff"),
    "in UTF-16": ('{"a": 1}'.encode("utf-16-le"), 0, "cannot be read"),
    "half a surrogate pair": ('{"\\ud800": ' + A_ENTRY[5:] + "}", 8, "surrogates not allowed"),
    "not an object": ("[]", 0, "is not an object"),
    "nested without end": ('{"a": ' + "[" * 100_000, 0, "cannot be read (maximum recursion depth"),
    "a number of many digits": ('{"a": ' + "9" * 5000 + "}", 0, "Exceeds the limit"),
    "not a number": ('{"a": NaN}', 0, "NaN is not JSON"),
    "bytes after it": ("{" + A_ENTRY + "}\0", 8, "Extra data"),
    "a name twice": ("{" + A_ENTRY + ", " + A_ENTRY + "}", 8, "'a' occurs twice"),
    "a name twice, once as an escape": ("{" + A_ENTRY + ', "\\u0061": 1}', 8, "'a' occurs twice"),
    "a field twice": ("{" + A_ENTRY[:-1] + ', "shape": [2]}}', 8, "'shape' occurs twice"),
    "an entry that is no object": ({"a": [0, 8]}, 8, "'a' needs data_offsets, dtype, shape and no more"),
    "an entry without a shape": ({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, 8, "needs data_offsets, dtype"),
    "an entry with a field too many": ({"a": {**entry(), "strides": [1]}}, 8, "and no more"),
    "an unknown dtype": ({"a": entry(dtype="F7")}, 8, "'a' in 'FILE' is of the unknown dtype 'F7'"),
    "a dtype that is no text": ({"a": entry(dtype=["F32"])}, 8, "unknown dtype ['F32']"),
    "a shape that is no list": ({"a": entry(shape=2)}, 8, "'a' has the impossible shape 2"),
    "a negative size": ({"a": entry(shape=[-1, -2])}, 8, "impossible shape [-1, -2]"),
    "a size with a point": ({"a": entry(shape=[2.0])}, 8, "impossible shape [2.0]"),
    "a size that is true": ({"a": entry(shape=[True, 2])}, 8, "impossible shape [True, 2]"),
    "a size as text": ({"a": entry(shape=["2"])}, 8, "impossible shape ['2']"),
    "a size beyond 64 bits": ({"a": entry(0, 0, shape=[0, 1 << 64])}, 0, "impossible shape"),
    "a product beyond 64 bits": ({"a": entry(0, 0, shape=[1 << 40, 1 << 40, 0])}, 0, "impossible shape"),
    "a product without bound": ({"a": entry(shape=[9] * 1_000_000)}, 8, "impossible shape [9, 9,"),
    "one offset": ({"a": {**entry(), "data_offsets": [0]}}, 8, "impossible data_offsets [0]"),
    "an offset with a point": ({"a": entry(0, 8.0)}, 8, "impossible data_offsets [0, 8.0]"),
    "a negative offset": ({"a": entry(-8, 0)}, 8, "impossible data_offsets [-8, 0]"),
    "offsets that run backwards": ({"a": entry(8, 0)}, 8, "impossible data_offsets [8, 0]"),
    "offsets beyond the file": ({"a": entry(0, 16, shape=[4])}, 8, "truncated; download it again"),
    "an offset of many digits": ({"a": entry(0, int("9" * 4300))}, 8, "truncated; download it again"),
    "too few bytes for the shape": ({"a": entry(shape=[3])}, 8, "'a' has 8 bytes, which is not F32 × [3]"),
    "too many bytes for the shape": ({"a": entry(shape=[])}, 8, "'a' has 8 bytes, which is not F32 × []"),
    "half a byte at the end": ({"a": entry(0, 2, dtype="F4", shape=[3])}, 2, "not F4 × [3]"),
    "tensors that overlap": ({"a": entry(), "b": entry(4, 12)}, 12, "'b' overlaps another"),
    "tensors in the same place": ({"a": entry(), "b": entry()}, 8, "'b' overlaps another"),
    "a gap between tensors": ({"a": entry(), "b": entry(12, 20)}, 20, "'b' leaves a gap before it"),
    "a gap at the start": ({"a": entry(4, 12)}, 12, "'a' leaves a gap before it"),
    "bytes that belong to no tensor": ({"a": entry()}, 9, "and its header speaks of"),
    "metadata that is no object": ({"__metadata__": ["pt"]}, 0, "__metadata__ of 'FILE' does not map text to text"),
    "metadata with a number": ({"__metadata__": {"step": 3}}, 0, "__metadata__ of 'FILE' does not map text to text"),
    "metadata that is nought": ({"__metadata__": 0}, 0, "__metadata__ of 'FILE' does not map text to text"),
    "a name of many lines": ({"a\nb" * 10_000: entry(dtype="F7")}, 8, "a\\nb"),
}


@pytest.mark.parametrize("header, data_bytes, message", HEADERS.values(), ids=list(HEADERS))
def test_a_broken_header_is_refused(tmp_path, header, data_bytes, message):
    said = refused(single(tmp_path, header, data_bytes))

    file = str(tmp_path / SINGLE_FILE)
    assert file in said and message.replace("FILE", file) in said
    assert "; download it again" in said


GOOD = raw({"a": entry()})
FILES: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "is empty; download it again"),
    "a file of seven bytes": (GOOD[:7], "is not a safetensors file; download it again"),
    "no header at all": (bytes(8), "is not a safetensors file; download it again"),
    "a header that is cut short": (GOOD[:30], "has 30 bytes and would have a header of"),
    "data that is cut short": (GOOD[:-1], "truncated; download it again"),
    "a length of 64 ones": (b"\xff" * 100, "would have a header of 18446744073709551615"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "git lfs pull"),
}


@pytest.mark.parametrize("content, message", FILES.values(), ids=list(FILES))
def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path, content, message):
    (tmp_path / SINGLE_FILE).write_bytes(content)

    said = refused(tmp_path)

    assert str(tmp_path / SINGLE_FILE) in said and message in said


def test_a_header_or_an_index_that_would_fill_the_memory_is_not_read(tmp_path):
    for file, start in ((SINGLE_FILE, (LARGEST_HEADER + 1).to_bytes(8, "little")), (INDEX_FILE, b"{")):
        folder = tmp_path / file
        folder.mkdir()
        with (folder / file).open("wb") as stream:
            stream.write(start)
            stream.truncate(10 * LARGEST_HEADER)  # a hole, which takes no space
        tracemalloc.start()
        assert f"{LARGEST_HEADER}" in refused(folder)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


INDEXES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "not JSON": (lambda at: index(sharded(at), "{"), "cannot be read (Expecting property name"),
    "not an object": (lambda at: index(sharded(at), "[]"), "has no weight_map from tensors to files"),
    "no weight_map": (lambda at: index(sharded(at), {"metadata": {}}), "has no weight_map from tensors to files"),
    "an empty weight_map": (lambda at: index(sharded(at), {"weight_map": {}}), "has no weight_map"),
    "a weight_map that is a list": (lambda at: index(sharded(at), {"weight_map": [FIRST]}), "has no weight_map"),
    "a file that is a number": (lambda at: mapped(at, b=2), "has no weight_map from tensors to files"),
    "a file that is a list": (lambda at: mapped(at, b=[SECOND]), "has no weight_map from tensors to files"),
    "a tensor twice": (
        lambda at: index(sharded(at), f'{{"weight_map": {{"a": "{FIRST}", "b": "{SECOND}", "a": "{SECOND}"}}}}'),
        "'a' occurs twice",
    ),
    "a missing file": (lambda at: mapped(at, c="model-00003.safetensors"), "lacks the shard 'model-00003.safetensors'"),
    "a tensor that no file has": (lambda at: mapped(at, c=SECOND), "disagree about 'c'"),
    "a file of a thousand letters": (lambda at: mapped(at, c="c" * 1000), "lacks the shard 'ccc"),
    "tensors in each other's file": (lambda at: mapped(at, a=SECOND, b=FIRST), "disagree about 'a'"),
    "a tensor that it leaves out": (
        lambda at: (
            single(at, {"a": entry(), "b": entry(8, 16)}, 16).joinpath(SINGLE_FILE).rename(at / FIRST)
            and index(at, {"weight_map": {"a": FIRST}})
        ),
        "disagree about 'b'",
    ),
    **{
        f"the file {name!r}": (lambda at, name=name: mapped(at, b=name), "not a file of its folder; do not use")
        for name in (
            "",
            ".",
            "..",
            f"../{FIRST}",
            f"/{FIRST}",
            f"x/{FIRST}",
            f"x\\{FIRST}",
            f"C:{FIRST}",
            "a\0b",
            "a\n",
        )
    },
}


@pytest.mark.parametrize("make, message", INDEXES.values(), ids=list(INDEXES))
def test_a_broken_index_is_refused(tmp_path, make, message):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / FIRST).write_bytes(raw({"b": entry()}))

    assert message in refused(make(folder))


def test_a_tensor_in_two_files_is_refused(tmp_path):
    sharded(tmp_path)
    (tmp_path / SECOND).write_bytes(raw({"b": entry(), "a": entry(8, 16)}, 16))

    assert f"'a' lies both in '{FIRST}' and in '{SECOND}'" in refused(tmp_path)


@pytest.mark.parametrize("name", [SINGLE_FILE, INDEX_FILE, SECOND])
def test_what_should_be_a_file_and_is_not_is_refused(tmp_path, name):
    for kind in ("folder", "pipe", "broken link", "circle"):
        folder = tmp_path / kind
        folder.mkdir()
        file = sharded(folder) / name
        file.unlink(missing_ok=True)
        if kind == "folder":
            file.mkdir()
        elif kind == "pipe":
            os.mkfifo(file)  # opening it would wait for ever
        else:
            file.symlink_to("nowhere" if kind == "broken link" else name)
        said = refused(folder)
        assert str(file) in said and ("not a file" in said or "missing" in said or "symbolic links" in said)


@pytest.mark.parametrize("name", [SINGLE_FILE, INDEX_FILE, SECOND])
def test_a_link_out_of_the_folder_is_refused_and_one_within_is_not(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    sharded(folder)
    if name == SINGLE_FILE:
        single(folder, {"a": entry()})
    (folder / name).rename(folder / "other")
    (folder / name).symlink_to("other")
    (tmp_path / "link").symlink_to("model")
    assert "a" in read_checkpoint(tmp_path / "link").tensors

    (folder / "other").rename(tmp_path / "other")
    (folder / name).unlink()
    (folder / name).symlink_to("../other")

    assert f"'{folder / name}' is a symbolic link that points out of its folder" in refused(folder)


def hub_snapshot(cache: Path) -> Path:
    """Lay a checkpoint out as the Hub's cache does: one file in the model's blobs, one in those that models share."""
    model = cache / "models--org--name"
    snapshot = model / "snapshots" / ("0" * 40)
    for folder in (snapshot, model / "blobs", cache / "blobs" / "ab"):
        folder.mkdir(parents=True)
    sharded(snapshot)
    (snapshot / FIRST).rename(model / "blobs" / "one")
    (snapshot / SECOND).rename(cache / "blobs" / "ab" / "two")
    (model / "blobs" / "two").symlink_to("../../blobs/ab/two")
    (snapshot / FIRST).symlink_to("../../blobs/one")
    (snapshot / SECOND).symlink_to("../../blobs/two")
    return snapshot


def test_the_links_of_the_hubs_cache_are_followed_and_others_in_it_are_not(tmp_path):
    snapshot = hub_snapshot(tmp_path / "hub")
    assert read_checkpoint(snapshot).tensors.keys() == {"a", "b"}

    (snapshot / SECOND).unlink()
    (snapshot / SECOND).symlink_to("../../../secret")
    (tmp_path / "hub" / "secret").write_bytes(raw({"b": entry()}))

    assert "a symbolic link that points out of its folder" in refused(snapshot)


def test_a_folder_beside_others_named_blobs_is_no_cache(tmp_path):
    folder = tmp_path / "snapshots" / "model"
    (tmp_path / "blobs").mkdir()
    folder.mkdir(parents=True)
    single(tmp_path / "blobs", {"a": entry()})
    (folder / SINGLE_FILE).symlink_to(f"../../blobs/{SINGLE_FILE}")

    assert "a symbolic link that points out of its folder" in refused(folder)


@pytest.mark.parametrize("name", [SINGLE_FILE, INDEX_FILE, SECOND, "."])
def test_what_may_not_be_read_is_refused(name):
    with folder_without_root() as folder:
        sharded(folder)
        if name == SINGLE_FILE:
            single(folder, {"a": entry()})
        (folder / name).chmod(0)
        said = refused(folder)

    assert said == f"'{folder / name}' cannot be read (Permission denied); fix that or give another"


def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path):
    assert "No such file" in refused(tmp_path / "nowhere")
    assert f"has neither {SINGLE_FILE} nor {INDEX_FILE}" in refused(tmp_path)


def test_every_dtype_of_the_format_is_known_with_its_size(tmp_path):
    for dtype, bits in DTYPE_BITS.items():
        file = single(tmp_path, {"a": entry(0, bits, dtype=dtype, shape=[2, 4])}, bits) / SINGLE_FILE
        assert read_checkpoint(tmp_path).tensors["a"].num_bytes == bits
        assert len(safetensors.deserialize(file.read_bytes())) == 1  # the format's own reader agrees
        single(tmp_path, {"a": entry(0, bits + 1, dtype=dtype, shape=[2, 4])}, bits + 1)
        assert f"has {bits + 1} bytes, which is not {dtype} × [2, 4]" in refused(tmp_path)
    with pytest.raises(safetensors.SafetensorError, match="expected one of") as stop:
        safetensors.deserialize(raw({"a": entry(dtype="F7")}))
    assert set(str(stop.value).split("`")[3::2]) <= set(DTYPE_BITS)


def test_odd_and_empty_tensors_are_read(tmp_path):
    tensors = {
        "": torch.ones(3),
        "scalar": torch.tensor(1.0),
        "empty": torch.ones(0, 4),
        "also empty": torch.ones(2, 0, dtype=torch.int8),
        "näme with spaces\nand lines": torch.ones(1, dtype=torch.bool),
    }
    save_file(tensors, tmp_path / SINGLE_FILE, metadata={"format": "pt"})

    read = read_checkpoint(tmp_path)

    assert {name: t.shape for name, t in read.tensors.items()} == {n: tuple(t.shape) for n, t in tensors.items()}
    assert read.metadata == {"format": "pt"} and not read.sharded


def test_tensors_come_in_the_order_of_their_bytes_whatever_that_of_the_header(tmp_path):
    single(tmp_path, {"b": entry(8, 16), "c": entry(8, 8, shape=[0]), "a": entry(0, 8)}, 16)

    assert list(read_checkpoint(tmp_path).tensors) == ["a", "c", "b"]


def test_ten_thousand_tensors_in_a_hundred_files_take_less_than_half_a_second(tmp_path):
    weight_map = {}
    for shard in range(100):
        names = [f"model.layers.{shard}.mlp.experts.{i}.weight" for i in range(100)]
        file = f"model-{shard + 1:05}-of-00100.safetensors"
        header = {name: entry(8 * i, 8 * i + 8) for i, name in enumerate(names)}
        (tmp_path / file).write_bytes(raw(header, 800))
        weight_map |= dict.fromkeys(names, file)
    index(tmp_path, {"weight_map": weight_map})

    start = time.process_time()  # of this process alone: others do not count
    prefix = find_prefix(read_checkpoint(tmp_path).tensors, depth=100)
    seconds = time.process_time() - start

    assert prefix == "model.layers" and seconds < 0.5


@pytest.mark.parametrize("index", ["²", "٣", "007", "1" * 5000, "-1", "+1", " 1", "1_0"])
def test_what_only_looks_like_an_index_is_part_of_a_name(index):
    assert split_name(f"h.{index}.w") is None
    assert split_name(f"h.{index}.0.w") == (f"h.{index}", 0, "w")


def test_a_depth_of_billions_is_refused_at_once_and_in_one_line():
    with pytest.raises(CannotDropError, match="no stack of that depth") as stop:
        find_prefix(["h\n.0.w", f"{'g' * 9999}.0.w"], depth=10**12)
    assert "\n" not in str(stop.value) and len(str(stop.value)) < 400


def test_indices_with_a_hole_are_no_stack():
    with pytest.raises(CannotDropError, match=r"no stack of that depth \(h 2\)"):
        find_prefix(["h.0.w", "h.2.w"], depth=2)
