"""Drop layers of a checkpoint by copying bytes: no model is loaded, so memory does not grow with the model.

The kept tensors of every shard are copied as byte ranges under their new names, whatever their dtype, and everything
outside the stacks is copied as it is. The new configuration is the old JSON, edited by the rules of `surgery.config`.

The proof (`proof/child.py`) runs in a child process beside the copy. It gets the new headers over files that have the
right length and no content, loads them on the meta device through the model's own class, and checks the two
configurations against each other. Only when it agrees does `TARGET.partial` become `TARGET`. No torch here.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthprune.checkpoints.companions import beside, check_beside, copy_files
from depthprune.checkpoints.copying import compare_file, layout, write_file
from depthprune.checkpoints.cut import Cut, plan_cut, stacks_in_plain_sight
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
from depthprune.output import check_outside, sync_file, sync_folder, whole_folder
from depthprune.plan import LayerPlan
from depthprune.scratch import scratch_folder
from depthprune.sources import ModelSource
from depthprune.surgery.config.depth import depth_keys, edited_generation, holder
from depthprune.surgery.coverage import Beyond, check_verified, source_beyond_census
from depthprune.surgery.stacks import Stack, match_plans

GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Opened:
    """A checkpoint whose headers were read and whose stacks are known, with the child that will prove the cut.

    Args:
        source: the model.
        checkpoint: its tensors.
        stacks: name → stack, with the checkpoint's paths.
        modules: name → paths of the same stack's module lists; empty where nobody had to ask.
        prover: the child process.
    """

    source: ModelSource
    checkpoint: Checkpoint
    stacks: dict[str, Stack]
    modules: dict[str, tuple[str, ...]]
    prover: Prover


@contextmanager
def opened(source: ModelSource, *, modules: bool = False) -> Iterator[Opened]:
    """Read the headers of a checkpoint and find its stacks; the child that proves lives as long as the context.

    Args:
        source: the model.
        modules: ask for the paths of the modules too, which costs the child's imports.

    Raises:
        LoadError: the files are broken.
        CannotDropError: there is no stack, or its tensors cannot be told apart by their names.
    """
    with Prover() as prover:
        file_inside(source.path, "config.json")
        check_beside(source.path)
        checkpoint = read_checkpoint(source.path)
        check_depths(depth_keys(source.config), checkpoint.tensors)
        stacks = stacks_in_plain_sight(source, checkpoint)
        paths: dict[str, tuple[str, ...]] = {}
        if stacks is None or modules:
            prover.ask({"do": "describe", **_named(source)})
            entries = prover.answer()["stacks"]
            paths = {entry["name"]: tuple(entry["modules"]) for entry in entries}
            stacks = stacks or {
                entry["name"]: Stack(entry["name"], tuple(entry["prefixes"]), entry["depth_key"], entry["depth"])
                for entry in entries
            }
        yield Opened(source, checkpoint, stacks, paths, prover)


@contextmanager
def proving(
    given: Opened, cut: Cut, *, scratch_in: Path | None = None, cache: bool = False
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start the proof of a cut and give the function that waits for its verdict.

    The headers to prove lie in a folder of their own in `scratch_in`, so that it goes with what a killed command left.

    The verdict adds to `cut.config` the entries that the new config.json has to spell out; with `cache` it has the
    bytes by which the cache grows with a token, before and after.

    Raises:
        CannotDropError: (of the function) the proof refuses.
    """
    with scratch_folder("proof", within=scratch_in) as scratch:
        files = layout(cut)
        for name, names in files.items():
            write_file(scratch / name, names, cut, empty=True)
        write_index(scratch, cut, files)
        write_rest(given.source, cut, scratch)
        # In a file, since a pipe holds less and the copy would wait until the child has read it.
        write_json(scratch / SOURCES_FILE, {name: piece.tensor.name for name, piece in cut.kept.items()})
        request = {"do": "prove", **_named(given.source), "new": str(scratch), "plans": _asked(cut), "cache": cache}
        given.prover.ask(request)

        def verdict() -> dict[str, Any]:
            answer = given.prover.answer()
            if answer.get("say"):
                for name, value in answer["say"].items():
                    holder(cut.config, name)[name.rpartition(".")[2]] = value
                write_json(scratch / "config.json", cut.config)
                given.prover.ask(request)
                answer = given.prover.answer()
                if answer.get("say"):  # an alias of the same entry goes before it
                    raise CannotDropError(
                        f"config.json says {next(iter(answer['say']))} under another name, which no rule edits; save "
                        "the model again with save_pretrained"
                    )
            return answer

        yield verdict


def drop_layers_in_checkpoint(
    source: ModelSource,
    target: Path | str,
    *,
    plan: LayerPlan | Mapping[str, LayerPlan],
    provenance: dict[str, Any] | None = None,
    verify: str = "headers",
) -> Cut:
    """Write the checkpoint that `plan` leaves of `source` to `target`, and prove it.

    Args:
        source: a model folder with safetensors files.
        target: a folder that does not exist or is empty.
        plan: the layers to drop; for a model with several stacks, stack name → plan.
        provenance: what goes into `depthprune.json`.
        verify: see `fill`.

    Raises:
        PlanError: the plan is for another depth, or names a stack that the model does not have.
        CannotDropError: the shorter model is not what the kept tensors make, or nothing speaks for that beyond the
            census of architectures; nothing is written.
        OutputError: the target is taken, or there is no space.
        LoadError: the source is broken.
    """
    target = Path(target)
    check_outside(target, source.path)
    with opened(source) as given:
        cut = plan_cut(source, match_plans(given.stacks, plan), given.checkpoint)
        with whole_folder(target, num_bytes=cut.kept_bytes) as partial:
            fill(given, cut, partial, verify=verify)
            if provenance is not None:
                write_json(partial / "depthprune.json", provenance)
    return cut


def fill(given: Opened, cut: Cut, folder: Path, *, verify: str = "headers") -> dict[str, Any]:
    """Write a cut into an empty folder, proving it at the same time.

    Args:
        given: the source.
        cut: of `plan_cut`.
        folder: an empty folder, not yet under its final name.
        verify: `headers`; `full` also compares every byte written with the source; `logits` also runs both models,
            which a cut beyond the census of architectures needs (`surgery/coverage.py`).

    Returns:
        What the proof found; `how` says against what the new headers were checked.

    Raises:
        UserError: see `drop_layers_in_checkpoint`.
    """
    check_verified(beyond(given, cut), verify)
    with proving(given, cut, scratch_in=folder) as verdict:
        files = layout(cut)
        # The disk is at work on one file while the next is copied; sync_folder finds little left to wait for.
        with ThreadPoolExecutor(max_workers=1) as disk:
            syncing = []
            for name, names in files.items():
                write_file(folder / name, names, cut)
                syncing.append(disk.submit(sync_file, folder / name))
            for job in syncing:
                job.result()
        write_index(folder, cut, files)
        if verify == "full":
            for name, names in files.items():
                compare_file(folder / name, names, cut)
        check_unchanged(given.checkpoint)
        reread = read_checkpoint(folder)
        assert {n: (t.dtype, t.shape) for n, t in reread.tensors.items()} == {
            n: (p.tensor.dtype, p.shape) for n, p in cut.kept.items()
        }, "what was written is not what was planned"
        sync_folder(folder)  # while the proof is at work
        answer = verdict()
        write_rest(given.source, cut, folder)
        if verify == "logits":
            given.prover.ask({"do": "logits", **_named(given.source), "new": str(folder), "plans": _asked(cut)})
            answer |= given.prover.answer()
            check_unchanged(given.checkpoint)
    return answer


def beyond(given: Opened, cut: Cut) -> Beyond | None:
    """Return why the census of architectures does not speak for a cut, or None where it does."""
    return source_beyond_census(given.source, [stack.depth_key for stack, plan in cut.plans.items() if plan.dropped])


def write_index(folder: Path, cut: Cut, files: dict[str, list[str]]) -> None:
    """Write the index of a checkpoint that has several files."""
    if len(files) > 1:
        weight_map = {name: file for file, names in files.items() for name in names}
        index = {"metadata": {"total_size": cut.kept_bytes}, "weight_map": weight_map}
        write_json(folder / INDEX_FILE, index)


def write_rest(source: ModelSource, cut: Cut, folder: Path) -> None:
    """Write the configuration, and copy the tokenizer and what else lies beside the weights."""
    write_json(folder / "config.json", cut.config)
    if (source.path / GENERATION).is_file():
        file = file_inside(source.path, GENERATION)
        with readable(file):
            generation = parse_config(file.read_bytes(), f"'{file}'")
        if not isinstance(generation, dict):
            raise LoadError(f"'{file}' is not an object; fetch the model again")
        write_json(folder / GENERATION, edited_generation(generation, cut.plans))
    copy_files(source.path, folder, beside(source.path, python=source.trust_remote_code))


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file as the Hub's are written."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _named(source: ModelSource) -> dict[str, Any]:
    return {"source": str(source.path.resolve()), "trust_remote_code": source.trust_remote_code}


def _asked(cut: Cut) -> dict[str, Any]:
    return {stack.depth_key: [plan.depth, list(plan.dropped)] for stack, plan in cut.plans.items()}
