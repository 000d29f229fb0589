"""Drop layers of a checkpoint by copying bytes: no model is loaded, so memory does not grow with the model.

The kept tensors of every shard are copied as byte ranges under their new names, whatever their dtype, and everything
outside the stack is copied as it is. The new configuration is the old JSON, edited by the rules of `anatomy`.

The proof (`prove.py`) runs in a child process beside the copy. It gets the new headers over files that have the right
length and no content, loads them on the meta device through the model's own class, and checks the two configurations
against each other. Only when it agrees does `TARGET.partial` become `TARGET`. No torch here.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthprune.errors import CannotDropError
from depthprune.output import check_space, whole_folder
from depthprune.plan import LayerPlan
from depthprune.sources import TOKENIZER_FILES, ModelSource
from depthprune.surgery.anatomy import changed_fields, check_supported, depth_keys
from depthprune.surgery.checkpoint import (
    INDEX_FILE,
    LENGTH_BYTES,
    SINGLE_FILE,
    Checkpoint,
    StoredTensor,
    find_prefix,
    read_checkpoint,
    shards,
    split_name,
)

COPIED_FILES = (*TOKENIZER_FILES, "generation_config.json", "preprocessor_config.json", "processor_config.json")
ALIGNMENT = 8
REFUSED, SAY_MORE = 2, 3  # exit statuses of the child
CHUNK = 1 << 26


@dataclass(frozen=True)
class Cut:
    """What a streamed drop does, worked out before a byte is written.

    Args:
        prefix: what stands before the layer index in the checkpoint's names.
        kept: new name → where its bytes lie, in the order of the source.
        dropped: the tensors that go.
        config: the new config.json.
        checkpoint: the source.
    """

    prefix: str
    kept: dict[str, StoredTensor]
    dropped: tuple[StoredTensor, ...]
    config: dict[str, Any]
    checkpoint: Checkpoint

    @property
    def kept_bytes(self) -> int:
        """Bytes of the tensors that stay."""
        return sum(tensor.num_bytes for tensor in self.kept.values())

    @property
    def dropped_bytes(self) -> int:
        """Bytes of the tensors that go."""
        return sum(tensor.num_bytes for tensor in self.dropped)


def plan_cut(source: ModelSource, plan: LayerPlan) -> Cut:
    """Work out which tensors go and what the new configuration is; writes nothing.

    Raises:
        CannotDropError: no stack, or several, or another depth than the plan's.
        LoadError: the files are broken.
    """
    check_supported(source.config)
    keys = depth_keys(source.config)
    if len(keys) != 1 or next(iter(keys.values())) != plan.depth:
        found = ", ".join(f"{key} {depth}" for key, depth in keys.items()) or "none"
        raise CannotDropError(
            f"the plan is for one stack of {plan.depth} layers, and the config.json of '{source.name}' says: {found}"
        )
    checkpoint = read_checkpoint(source.path)
    prefix = find_prefix(checkpoint.tensors, plan.depth)
    kept: dict[str, StoredTensor] = {}
    dropped: list[StoredTensor] = []
    for name, tensor in checkpoint.tensors.items():
        split = split_name(name)
        if split is None or split[0] != prefix:
            kept[name] = tensor
        elif (index := plan.new_index(split[1])) is None:
            dropped.append(tensor)
        else:
            kept[f"{prefix}.{index}.{split[2]}"] = tensor
    assert len(kept) + len(dropped) == len(checkpoint.tensors), "two tensors would get one name"
    config = {**source.config, **changed_fields(source.config, next(iter(keys)), plan)}
    return Cut(prefix, kept, tuple(dropped), config, checkpoint)


def drop_layers_in_checkpoint(
    source: ModelSource, target: Path | str, *, plan: LayerPlan, provenance: dict[str, Any] | None = None
) -> Cut:
    """Write the checkpoint that `plan` leaves of `source` to `target`, and prove it.

    Raises:
        CannotDropError: the shorter model is not what the kept tensors make; nothing is written.
        OutputError: the target is taken, or there is no space.
        LoadError: the source is broken.
    """
    cut = plan_cut(source, plan)
    check_space(Path(target), cut.kept_bytes)
    with whole_folder(Path(target)) as partial, proving(source, cut, plan) as proof:
        files = layout(cut)
        for name, header in files.items():
            write_file(partial / name, header, cut)
        write_rest(source, cut, partial, files)
        if provenance is not None:
            (partial / "depthprune.json").write_text(_json(provenance), encoding="utf-8")
        reread = read_checkpoint(partial)
        assert {n: (t.dtype, t.shape) for n, t in reread.tensors.items()} == {
            n: (t.dtype, t.shape) for n, t in cut.kept.items()
        }, "what was written is not what was planned"
        added = proof.verdict()
        if added:
            cut.config.update(added)
            (partial / "config.json").write_text(_json(cut.config), encoding="utf-8")
            proof.again(cut.config)
            assert not proof.verdict(), "the proof asks for the same entries twice"
    return cut


def layout(cut: Cut) -> dict[str, list[str]]:
    """Return file name → names of its tensors, sharded by the source's own shard size."""
    sizes = {name: tensor.num_bytes for name, tensor in cut.kept.items()}
    groups = list(shards(sizes, cut.checkpoint.shard_bytes)) if cut.checkpoint.sharded else [list(sizes)]
    if len(groups) == 1:
        return {SINGLE_FILE: groups[0]}
    return {f"model-{i + 1:05}-of-{len(groups):05}.safetensors": names for i, names in enumerate(groups)}


def write_file(file: Path, names: list[str], cut: Cut, *, empty: bool = False) -> None:
    """Write one safetensors file; with `empty`, only its header over a hole of the right length."""
    # Tensors of wide dtypes first, as the format's own writer has it, so that each starts aligned.
    ordered = sorted(names, key=lambda name: -_item_bytes(cut.kept[name]))
    header: dict[str, Any] = {"__metadata__": cut.checkpoint.metadata} if cut.checkpoint.metadata else {}
    at = 0
    for name in ordered:
        tensor = cut.kept[name]
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, at + tensor.num_bytes]}
        at += tensor.num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        stream.flush()
        if empty:
            stream.truncate(LENGTH_BYTES + len(text) + at)
            return
        for name in ordered:
            copy_range(cut.kept[name], stream.fileno())


def copy_range(tensor: StoredTensor, target: int) -> None:
    """Append a tensor's bytes to the open file `target`, inside the kernel where the system can."""
    with tensor.file.open("rb") as stream:
        at, left = tensor.start, tensor.num_bytes
        while left:
            try:
                done = os.copy_file_range(stream.fileno(), target, min(left, CHUNK), at)
            except (AttributeError, OSError):  # not on this system, or not between these file systems
                stream.seek(at)
                done = os.write(target, stream.read(min(left, CHUNK)))
            assert done > 0, "the source became shorter while it was read"
            at, left = at + done, left - done


def write_rest(source: ModelSource, cut: Cut, folder: Path, files: dict[str, list[str]]) -> None:
    """Write the index and the configuration, and copy the tokenizer and what else lies beside."""
    if len(files) > 1:
        weight_map = {name: file for file, names in files.items() for name in names}
        index = {"metadata": {"total_size": cut.kept_bytes}, "weight_map": weight_map}
        (folder / INDEX_FILE).write_text(_json(index), encoding="utf-8")
    (folder / "config.json").write_text(_json(cut.config), encoding="utf-8")
    for name in (*COPIED_FILES, *(file.name for file in source.path.glob("*.py") if source.trust_remote_code)):
        if (source.path / name).is_file():
            shutil.copyfile(source.path / name, folder / name)


class Proof:
    """The proof of a cut in a child process, which starts at once and runs while the bytes are copied."""

    def __init__(self, source: ModelSource, cut: Cut, plan: LayerPlan, folder: Path):
        self._name = source.name
        self._hollow = folder / "new"
        self._hollow.mkdir()
        files = layout(cut)
        for name, names in files.items():
            write_file(self._hollow / name, names, cut, empty=True)
        write_rest(source, cut, self._hollow, files)
        request = {
            "source": str(source.path.resolve()),
            "new": str(self._hollow),
            "depth": plan.depth,
            "dropped": plan.dropped,
            "trust_remote_code": source.trust_remote_code,
        }
        self._command = [sys.executable, "-m", "depthprune.surgery.prove", json.dumps(request)]
        self._child = self._start()

    def _start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        return subprocess.Popen(self._command, stdout=pipe, stderr=pipe, text=True, env=environment)

    def verdict(self) -> dict[str, Any]:
        """Wait for the proof.

        Returns:
            Entries that the configuration's class makes up for the old depth and that the new config.json must
            therefore say; empty when everything agrees.

        Raises:
            CannotDropError: it refuses; the message is the child's.
        """
        out, said = self._child.communicate()
        if self._child.returncode == SAY_MORE:
            return json.loads(out.strip().splitlines()[-1])
        if self._child.returncode:
            reason = (said.strip().splitlines() or ["it ended without a word"])[-1]
            prefix = "" if self._child.returncode == REFUSED else f"the proof of '{self._name}' failed: "
            raise CannotDropError(prefix + reason)
        return {}

    def again(self, config: dict[str, Any]) -> None:
        """Start the proof anew with another configuration."""
        (self._hollow / "config.json").write_text(_json(config), encoding="utf-8")
        self._child = self._start()

    def stop(self) -> None:
        """End the child if it still runs."""
        self._child.kill()
        self._child.communicate()


@contextmanager
def proving(source: ModelSource, cut: Cut, plan: LayerPlan) -> Iterator[Proof]:
    """Start the proof of a cut, and end it with the block."""
    with tempfile.TemporaryDirectory(prefix="depthprune-proof-") as scratch:
        proof = Proof(source, cut, plan, Path(scratch))
        try:
            yield proof
        finally:
            proof.stop()


def _item_bytes(tensor: StoredTensor) -> int:
    count = 1
    for size in tensor.shape:
        count *= size
    return tensor.num_bytes // count if count else 0


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
