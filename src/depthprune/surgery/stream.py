"""Drop layers of a checkpoint by copying bytes: no model is loaded, so memory does not grow with the model.

The kept tensors of every shard are copied as byte ranges under their new names, whatever their dtype, and everything
outside the stacks is copied as it is. The new configuration is the old JSON, edited by the rules of `anatomy`.

The proof (`prove.py`) runs in a child process beside the copy. It gets the new headers over files that have the right
length and no content, loads them on the meta device through the model's own class, and checks the two configurations
against each other. Only when it agrees does `TARGET.partial` become `TARGET`. No torch here.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthprune.output import check_space, whole_folder
from depthprune.plan import LayerPlan
from depthprune.sources import TOKENIZER_FILES, ModelSource
from depthprune.surgery.anatomy import edited_generation, holder
from depthprune.surgery.checkpoint import INDEX_FILE, Checkpoint, read_checkpoint
from depthprune.surgery.cut import Cut, plan_cut, stacks_in_plain_sight
from depthprune.surgery.proof import Prover
from depthprune.surgery.stacks import Stack, match_plans
from depthprune.surgery.writing import compare_file, layout, write_file

COPIED_FILES = (*TOKENIZER_FILES, "preprocessor_config.json", "processor_config.json")
GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Opened:
    """A checkpoint whose headers were read and whose stacks are known, with the child that will prove the cut.

    Args:
        source: the model.
        checkpoint: its tensors.
        stacks: name → stack, with the checkpoint's paths.
        prover: the child process.
    """

    source: ModelSource
    checkpoint: Checkpoint
    stacks: dict[str, Stack]
    prover: Prover


@contextmanager
def opened(source: ModelSource) -> Iterator[Opened]:
    """Read the headers of a checkpoint and find its stacks; the child that proves lives as long as the context.

    Raises:
        LoadError: the files are broken.
        CannotDropError: there is no stack, or its tensors cannot be told apart by their names.
    """
    with Prover() as prover:
        checkpoint = read_checkpoint(source.path)
        stacks = stacks_in_plain_sight(source, checkpoint)
        if stacks is None:
            prover.ask({"do": "describe", **_named(source)})
            stacks = {
                entry["name"]: Stack(entry["name"], tuple(entry["prefixes"]), entry["depth_key"], entry["depth"])
                for entry in prover.answer()["stacks"]
            }
        yield Opened(source, checkpoint, stacks, prover)


@contextmanager
def proving(given: Opened, cut: Cut, *, cache: bool = False) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start the proof of a cut and give the function that waits for its verdict.

    The verdict adds to `cut.config` the entries that the new config.json has to spell out; with `cache` it has the
    bytes by which the cache grows with a token, before and after.

    Raises:
        CannotDropError: (of the function) the proof refuses.
    """
    with tempfile.TemporaryDirectory(prefix="depthprune-proof-") as scratch:
        files = layout(cut)
        for name, names in files.items():
            write_file(Path(scratch) / name, names, cut, empty=True)
        write_index(Path(scratch), cut, files)
        write_rest(given.source, cut, Path(scratch))
        request = {"do": "prove", **_named(given.source), "new": scratch, "plans": _asked(cut), "cache": cache}
        given.prover.ask(request)

        def verdict() -> dict[str, Any]:
            answer = given.prover.answer()
            if answer.get("say"):
                for name, value in answer["say"].items():
                    holder(cut.config, name)[name.rpartition(".")[2]] = value
                (Path(scratch) / "config.json").write_text(_json(cut.config), encoding="utf-8")
                given.prover.ask(request)
                answer = given.prover.answer()
                assert not answer.get("say"), "the proof asks for the same entries twice"
            return answer

        yield verdict


def drop_layers_in_checkpoint(
    source: ModelSource,
    target: Path | str,
    *,
    plan: LayerPlan | Mapping[str, LayerPlan],
    provenance: dict[str, Any] | None = None,
) -> Cut:
    """Write the checkpoint that `plan` leaves of `source` to `target`, and prove it.

    Args:
        source: a model folder with safetensors files.
        target: a folder that does not exist or is empty.
        plan: the layers to drop; for a model with several stacks, stack name → plan.
        provenance: what goes into `depthprune.json`.

    Raises:
        PlanError: the plan is for another depth, or names a stack that the model does not have.
        CannotDropError: the shorter model is not what the kept tensors make; nothing is written.
        OutputError: the target is taken, or there is no space.
        LoadError: the source is broken.
    """
    with opened(source) as given:
        cut = plan_cut(source, match_plans(given.stacks, plan), given.checkpoint)
        write_cut(given, cut, Path(target), provenance=provenance)
    return cut


def write_cut(
    given: Opened,
    cut: Cut,
    target: Path,
    *,
    provenance: dict[str, Any] | None = None,
    verify: str = "headers",
) -> dict[str, Any]:
    """Write a cut, proving it at the same time.

    Args:
        given: the source.
        cut: of `plan_cut`.
        target: a folder that does not exist or is empty.
        provenance: what goes into `depthprune.json`.
        verify: `headers`; `full` also compares every byte written with the source; `logits` also runs both models.

    Returns:
        What the proof found; `how` says against what the new headers were checked.

    Raises:
        UserError: see `drop_layers_in_checkpoint`.
    """
    check_space(target, cut.kept_bytes)
    with whole_folder(target) as partial, proving(given, cut) as verdict:
        files = layout(cut)
        for name, names in files.items():
            write_file(partial / name, names, cut)
        write_index(partial, cut, files)
        if verify == "full":
            for name, names in files.items():
                compare_file(partial / name, names, cut)
        reread = read_checkpoint(partial)
        assert {n: (t.dtype, t.shape) for n, t in reread.tensors.items()} == {
            n: (p.tensor.dtype, p.shape) for n, p in cut.kept.items()
        }, "what was written is not what was planned"
        answer = verdict()
        write_rest(given.source, cut, partial)
        if provenance is not None:
            (partial / "depthprune.json").write_text(_json(provenance), encoding="utf-8")
        if verify == "logits":
            given.prover.ask({"do": "logits", **_named(given.source), "new": str(partial), "plans": _asked(cut)})
            answer |= given.prover.answer()
    return answer


def write_index(folder: Path, cut: Cut, files: dict[str, list[str]]) -> None:
    """Write the index of a checkpoint that has several files."""
    if len(files) > 1:
        weight_map = {name: file for file, names in files.items() for name in names}
        index = {"metadata": {"total_size": cut.kept_bytes}, "weight_map": weight_map}
        (folder / INDEX_FILE).write_text(_json(index), encoding="utf-8")


def write_rest(source: ModelSource, cut: Cut, folder: Path) -> None:
    """Write the configuration, and copy the tokenizer and what else lies beside."""
    (folder / "config.json").write_text(_json(cut.config), encoding="utf-8")
    if (source.path / GENERATION).is_file():
        generation = json.loads((source.path / GENERATION).read_text(encoding="utf-8"))
        (folder / GENERATION).write_text(_json(edited_generation(generation, cut.plans)), encoding="utf-8")
    for name in (*COPIED_FILES, *(file.name for file in source.path.glob("*.py") if source.trust_remote_code)):
        if (source.path / name).is_file():
            shutil.copyfile(source.path / name, folder / name)


def _named(source: ModelSource) -> dict[str, Any]:
    return {"source": str(source.path.resolve()), "trust_remote_code": source.trust_remote_code}


def _asked(cut: Cut) -> dict[str, Any]:
    return {stack.depth_key: [plan.depth, list(plan.dropped)] for stack, plan in cut.plans.items()}


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
