"""Drop layers of a checkpoint by copying bytes: no model is loaded, so memory use does not depend on the model size.

The kept tensors of every shard are copied as byte ranges under their new names, whatever their dtype, and everything
outside the stacks is copied as it is. The new configuration is the old JSON, edited by the rules of `surgery.config`.

The proof (`proof/child.py`) runs in a child process during the copy. It gets the new headers on sparse files of the
right length, loads them on the meta device through the model's own class, and checks the two configurations against
each other. Only when it agrees does `TARGET.partial` become `TARGET`. No torch here.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthprune.checkpoints.companions import beside, check_beside, copy_files
from depthprune.checkpoints.copying import compare_file, layout, write_file
from depthprune.checkpoints.cut import Cut, stacks_in_plain_sight
from depthprune.checkpoints.header import parse_config, readable
from depthprune.checkpoints.layout import (
    INDEX_FILE,
    Checkpoint,
    check_depths,
    check_unchanged,
    file_inside,
    read_checkpoint,
)
from depthprune.checkpoints.proof.client import SOURCES_FILE, Prover
from depthprune.errors import CannotDropError, LoadError
from depthprune.output import sync_file, sync_folder
from depthprune.result_file import replace_json
from depthprune.scratch import scratch_folder
from depthprune.sources import ModelSource
from depthprune.surgery.config.depth import depth_keys, edited_generation, holder
from depthprune.surgery.coverage import Beyond, source_beyond_census
from depthprune.surgery.stacks import ModulePath, TensorPrefix, TensorStack

GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Opened:
    """A checkpoint whose headers were read and whose stacks are known, with the child process that will prove the cut.

    Args:
        source: the model.
        checkpoint: its tensors.
        stacks: by name.
        modules: name → paths of the same stack's module lists; empty if the child process was not asked.
        prover: the child process.
    """

    source: ModelSource
    checkpoint: Checkpoint
    stacks: dict[str, TensorStack]
    modules: dict[str, tuple[ModulePath, ...]]
    prover: Prover


@contextmanager
def opened(source: ModelSource, *, modules: bool = False) -> Iterator[Opened]:
    """Read the headers of a checkpoint and find its stacks; the child process runs while the context lasts.

    Args:
        source: the model.
        modules: ask the child process for the module paths too, which takes the seconds of its imports.

    Raises:
        LoadError: if the files are broken.
        CannotDropError: if there is no stack, or the tensor names do not show which layer they belong to.
    """
    with Prover() as prover:
        file_inside(source.path, "config.json")
        check_beside(source.path)
        checkpoint = read_checkpoint(source.path)
        check_depths(depth_keys(source.config), checkpoint.tensors)
        stacks = stacks_in_plain_sight(source, checkpoint)
        paths: dict[str, tuple[ModulePath, ...]] = {}
        if stacks is None or modules:
            prover.ask({"do": "describe", **_named(source)})
            entries = prover.answer()["stacks"]
            paths = {entry["name"]: tuple(map(ModulePath, entry["modules"])) for entry in entries}
            stacks = stacks or {
                entry["name"]: TensorStack(
                    entry["name"], tuple(map(TensorPrefix, entry["prefixes"])), entry["depth_key"], entry["depth"]
                )
                for entry in entries
            }
        yield Opened(source, checkpoint, stacks, paths, prover)


@contextmanager
def proving(
    given: Opened, cut: Cut, *, scratch_in: Path | None = None, cache: bool = False
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start the proof of a cut and return the function that waits for its result.

    The headers to prove are in a temporary folder inside `scratch_in`, so that it is removed with what a killed command
    left.

    The result adds to `cut.config` the entries that the new config.json has to spell out; with `cache` it has the bytes
    that the cache grows by per token, before and after.

    Raises:
        CannotDropError: raised by the returned function if the proof fails.
    """
    with scratch_folder("proof", within=scratch_in) as scratch:
        files = layout(cut)
        for name, names in files.items():
            write_file(scratch / name, names, cut, empty=True)
        write_index(scratch, cut, files)
        write_configs(given.source, cut, scratch)
        copy_files(given.source.path, scratch, beside(given.source.path, python=given.source.trust_remote_code))
        # In a file: a pipe has a small buffer, and the copy would wait until the child has read it.
        replace_json(scratch / SOURCES_FILE, {name: piece.tensor.name for name, piece in cut.kept.items()})
        request = {"do": "prove", **_named(given.source), "new": str(scratch), "plans": _asked(cut), "cache": cache}
        given.prover.ask(request)

        def verdict() -> dict[str, Any]:
            answer = given.prover.answer()
            if answer.get("say"):
                for name, value in answer["say"].items():
                    holder(cut.config, name)[name.rpartition(".")[2]] = value
                replace_json(scratch / "config.json", cut.config)
                given.prover.ask(request)
                answer = given.prover.answer()
                if answer.get("say"):  # an alias of the same entry takes precedence
                    raise CannotDropError(
                        f"config.json says {next(iter(answer['say']))} under another name, which no rule edits; save "
                        "the model again with save_pretrained"
                    )
            return answer

        yield verdict


def fill(given: Opened, cut: Cut, folder: Path, *, compare_bytes: bool = False) -> dict[str, Any]:
    """Write the weights and the configurations of a cut into an empty folder, proving it at the same time.

    Args:
        given: the source.
        cut: from `plan_cut`.
        folder: an empty folder, before it is renamed to its target.
        compare_bytes: compare every byte written with the source.

    Returns:
        The result of the proof; `how` says what the new headers were checked against.

    Raises:
        UserError: see `drop.drop_checkpoint`.
    """
    with proving(given, cut, scratch_in=folder) as verdict:
        files = layout(cut)
        # The disk writes one file while the next is copied, so that sync_folder has little left to wait for.
        with ThreadPoolExecutor(max_workers=1) as disk:
            syncing = []
            for name, names in files.items():
                write_file(folder / name, names, cut)
                syncing.append(disk.submit(sync_file, folder / name))
            for job in syncing:
                job.result()
        write_index(folder, cut, files)
        if compare_bytes:
            for name, names in files.items():
                compare_file(folder / name, names, cut)
        check_unchanged(given.checkpoint)
        reread = read_checkpoint(folder)
        assert {n: (t.dtype, t.shape) for n, t in reread.tensors.items()} == {
            n: (p.tensor.dtype, p.shape) for n, p in cut.kept.items()
        }, "what was written is not what was planned"
        sync_folder(folder)  # while the proof runs
        answer = verdict()
        write_configs(given.source, cut, folder)
    return answer


def compare_logits(given: Opened, cut: Cut, folder: Path) -> str:
    """Run the source, with the dropped layers bypassed, and the complete folder of its cut on the same inputs.

    Returns:
        What was compared, for the card.

    Raises:
        CannotDropError: if the outputs differ, or a model cannot be run.
        LoadError: if the source has changed in the meantime.
    """
    given.prover.ask({"do": "logits", **_named(given.source), "new": str(folder), "plans": _asked(cut)})
    found = given.prover.answer()["logits"]
    check_unchanged(given.checkpoint)
    return found


def beyond(given: Opened, cut: Cut) -> Beyond | None:
    """Return why the census of architectures does not cover a cut, or None if it does."""
    return source_beyond_census(given.source, [stack.depth_key for stack, plan in cut.plans.items() if plan.dropped])


def write_index(folder: Path, cut: Cut, files: dict[str, list[str]]) -> None:
    """Write the index of a checkpoint that has several files."""
    if len(files) > 1:
        weight_map = {name: file for file, names in files.items() for name in names}
        index = {"metadata": {"total_size": cut.kept_bytes}, "weight_map": weight_map}
        replace_json(folder / INDEX_FILE, index)


def write_configs(source: ModelSource, cut: Cut, folder: Path) -> None:
    """Write config.json, and generation_config.json where the source has one."""
    replace_json(folder / "config.json", cut.config)
    if (source.path / GENERATION).is_file():
        file = file_inside(source.path, GENERATION)
        with readable(file):
            generation = parse_config(file.read_bytes(), f"'{file}'")
        if not isinstance(generation, dict):
            raise LoadError(f"'{file}' is not an object; download the model again")
        replace_json(folder / GENERATION, edited_generation(generation, cut.plans))


def _named(source: ModelSource) -> dict[str, Any]:
    return {"source": str(source.path.resolve()), "trust_remote_code": source.trust_remote_code}


def _asked(cut: Cut) -> dict[str, Any]:
    return {stack.depth_key: plan.to_dict() for stack, plan in cut.plans.items()}
