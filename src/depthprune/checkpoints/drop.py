"""Drop layers of a checkpoint file by file: what `depthprune drop` does, as a function. No torch, and no model is
loaded.

Adapters of the model are cut with it; of a sentence-transformers folder, all modules are written.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from depthprune.arguments import checked
from depthprune.checkpoints.adapters.cut import cut_adapter
from depthprune.checkpoints.companions import find_transformer
from depthprune.checkpoints.cut import Cut, plan_cut
from depthprune.checkpoints.history import provenance
from depthprune.checkpoints.publish import write_beside_weights
from depthprune.checkpoints.stream import Opened, beyond, compare_logits, fill, opened
from depthprune.errors import LoadError, UserError
from depthprune.output import check_outside, whole_folder
from depthprune.plan import LayerPlan, Plans, format_layers
from depthprune.sources import ModelSource, locate
from depthprune.surgery.coverage import check_verified
from depthprune.surgery.stacks import Stack, depths_of, match_plans

ADAPTERS = "adapters"
LEVELS = ("headers", "full", "logits")
LOADED = "plain from_pretrained takes exactly these tensors"


@dataclass(frozen=True)
class Decision:
    """Which layers are dropped, and how they were chosen.

    Args:
        plans: stack name → plan.
        strategy: the strategy that chose the layers, if there was one.
        scores: stack name → the scores of its layers, if the strategy used scores.
    """

    plans: Plans
    strategy: str | None = None
    scores: Mapping[str, Sequence[float]] | None = None


@dataclass(frozen=True)
class DroppedCheckpoint:
    """What `drop_checkpoint` wrote.

    Args:
        path: the folder.
        plans: stack name → plan.
        parameters: of the source and of what was written; packed ones, such as four-bit weights, as they are stored.
        num_bytes: of the tensors of both.
        adapters: the folders of the adapters that were cut with it.
        proof: how the checkpoint was proved.
    """

    path: Path
    plans: dict[str, LayerPlan]
    parameters: tuple[int, int]
    num_bytes: tuple[int, int]
    adapters: tuple[Path, ...]
    proof: str


@checked("drop_checkpoint")
def drop_checkpoint(
    source: str | Path | ModelSource,
    target: str | Path,
    plan: LayerPlan
    | Iterable[int]
    | Mapping[str, LayerPlan | Iterable[int]]
    | Decision
    | Callable[[dict[str, int]], Decision],
    *,
    adapters: Iterable[str | Path] = (),
    verify: str = "headers",
    trust_remote_code: bool = False,
    root: Path | None = None,
) -> DroppedCheckpoint:
    """Drop layers of a checkpoint without loading it, write the result, and prove it.

    Tokenizer, licence and other files beside the weights are copied, and a model card and a history (`depthprune.json`)
    are written. Pickled weights cannot be cut this way: load the model, then use `drop_layers` and `save_checkpoint`.

    Args:
        source: a folder or Hub id with safetensors weights, or a sentence-transformers folder.
        target: a folder that does not exist or is empty.
        plan: the layers to drop, from 0; for a model with several stacks, by the name of the stack. A `Decision` also
            says how they were chosen. A function is called with {stack name: depth} and returns one of these.
        adapters: PEFT folders made for the source; each is cut to `adapters/NAME` in the target.
        verify: `headers`; `full` also compares every byte written with the source; `logits` also runs both models,
            which is required for architectures that the census does not cover (docs/architectures.md).
        trust_remote_code: run the modelling code in the source.
        root: the sentence-transformers folder around a located source, if there is one.

    Raises:
        PlanError: if the plan is for another depth, or names a stack that the model does not have.
        CannotDropError: if the shorter model is not what the kept tensors make, or its architecture is not covered by
            the census and was not verified; nothing is written.
        OutputError: if the target exists already, or there is no space.
        LoadError: if the source is broken.
        UserError: if there is no such level of verification.
    """
    check_level(verify)
    target, folders = Path(target), [Path(adapter) for adapter in adapters]
    if not isinstance(source, ModelSource):
        # A local pickle is not loaded here and is refused below; one on the Hub would be downloaded in vain.
        here = Path(source).expanduser().is_dir()
        source, root = locate_whole(source, allow_pickle=here, trust_remote_code=trust_remote_code)
    if source.weights[0].suffix != ".safetensors":
        raise LoadError(
            f"'{source.name}' has its weights in a pickle ({source.weights[0].name}), which is not cut in files; load "
            "the model, then use drop_layers and save_checkpoint"
        )
    check_outside(target, root or source.path)
    with planned(source, plan, modules=bool(folders)) as (given, cut, decision):
        check_verified(beyond(given, cut), verify)
        history = provenance(source, decision.plans, strategy=decision.strategy, scores=decision.scores)
        with whole_folder(target, num_bytes=cut.kept_bytes) as partial:
            inside = partial / source.path.relative_to(root or source.path)
            inside.mkdir(parents=True, exist_ok=True)
            answer = fill(given, cut, inside, compare_bytes=verify == "full")

            def prove() -> str:
                return proof_of(answer, verify, compare_logits(given, cut, inside) if verify == "logits" else "")

            proof = write_beside_weights(
                partial,
                source=source,
                history=history,
                name=target.name,
                config={**cut.config, "architectures": [answer["class"]]},
                prove=prove,
                root=root,
                parameters=cut.parameters,
                command=command_for(source, decision.plans),
                library="transformers" if root is None else "sentence-transformers",
            )
            for adapter in folders:
                place = partial / ADAPTERS / adapter.resolve().name
                cut_adapter(adapter, place, plans=_all_stacks(given, cut), base_model=str(target), provenance=history)
    written = tuple(target / ADAPTERS / adapter.resolve().name for adapter in folders)
    num_bytes = cut.checkpoint.num_bytes, cut.kept_bytes
    return DroppedCheckpoint(target, dict(decision.plans), cut.parameters, num_bytes, written, proof)


def check_level(verify: str) -> None:
    """Check that a level of verification exists.

    Raises:
        UserError: if there is no such level; the message lists those that exist.
    """
    if verify not in LEVELS:
        raise UserError(f"there is no --verify '{verify}'; it is one of {', '.join(LEVELS)}")


def locate_whole(
    model: str | Path, *, allow_pickle: bool = False, trust_remote_code: bool = False
) -> tuple[ModelSource, Path | None]:
    """Find a model and, if it is the transformer of a sentence-transformers folder, that folder.

    Raises:
        LoadError: see `sources.locate`.
        CannotDropError: see `companions.find_transformer`.
    """
    root = Path(model).expanduser()
    transformer = find_transformer(root) if root.is_dir() else None
    source = locate(str(transformer or model), allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    return source, root if transformer is not None else None


@contextmanager
def planned(source: ModelSource, plan: Any, *, modules: bool = False) -> Iterator[tuple[Opened, Cut, Decision]]:
    """Read the headers of a checkpoint and plan the cut; writes nothing. The child process runs while the context
    lasts.

    Args:
        source: the model.
        plan: see `drop_checkpoint`.
        modules: see `stream.opened`.
    """
    with opened(source, modules=modules) as given:
        if callable(plan):
            plan = plan(depths_of(given.stacks))
        decision = plan if isinstance(plan, Decision) else Decision(plan)
        plans = match_plans(given.stacks, decision.plans)
        cut = plan_cut(source, plans, given.checkpoint)
        yield given, cut, replace(decision, plans={stack.name: stack_plan for stack, stack_plan in plans.items()})


def proof_of(answer: Mapping[str, Any], verify: str, logits: str = "") -> str:
    """Return how a cut was proved, as a sentence without a full stop."""
    how = LOADED if answer["how"] == "loaded" else f"the headers agree with the source's; {answer['how']}"
    more = {"headers": "", "full": "; every byte compared with the source", "logits": f"; {logits}"}
    return how + more[verify]


def _all_stacks(given: Opened, cut: Cut) -> dict[Stack[str], LayerPlan]:
    """Return every stack, including those that lose no layer, by the paths of its tensors and of its modules."""
    plans = {stack.name: plan for stack, plan in cut.plans.items()}
    found = {}
    for name, stack in given.stacks.items():
        paths = tuple(dict.fromkeys((*stack.paths, *given.modules.get(name, ()))))
        both = Stack[str](name, paths, stack.depth_key, stack.depth)
        found[both] = plans.get(name, LayerPlan(stack.depth, ()))
    return found


def command_for(source: ModelSource, plans: Plans) -> str | None:
    """Return a command that repeats this cut, without local paths; None if nothing was dropped."""
    name = source.name if source.commit is not None else source.path.resolve().name
    layers = {stack: format_layers(plan.dropped) for stack, plan in plans.items() if plan.dropped}
    options = [
        f"--layers {shlex.quote(text if stack == 'layers' else f'{stack}={text}')}" for stack, text in layers.items()
    ]
    return " ".join(["depthprune drop", shlex.quote(name), *options, "--output DIR"]) if options else None
