"""Where a checkpoint comes from: `depthprune.json` beside its weights, with every cut that made it, oldest first.

    {"cuts": [{"source": "bert-large", "header_hash": "sha256:…",
               "stacks": {"encoder": {"depth": 12, "dropped": [0], "original_depth": 24, "original_dropped": [4],
                                      "original_kept": [5, …]}},
               "strategy": "top", "scores": {"encoder": […]}}],
     "packages": {"depthprune": "…"}}

`depth`, `dropped` and `scores` are numbered in the model that was given to that cut; what begins with `original_`, in
the first model of the list. The first version of the format had `depth` and `dropped` of the only stack beside
`source`; such files are still read. No torch.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from depthprune.checkpoints.layout import file_inside
from depthprune.errors import LoadError, PlanError
from depthprune.plan import LayerPlan, Plans, format_layers
from depthprune.sources import ModelSource

PROVENANCE_FILE = "depthprune.json"
ONLY_STACK = "layers"  # name of the stack if there is only one
PACKAGES = (
    "depthprune",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "safetensors",
    "numpy",
    "scikit-learn",
    "scipy",
)

Cut = dict[str, Any]


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that a result depends on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_history(folder: Path) -> tuple[Cut, ...]:
    """Return the cuts that led to the checkpoint in `folder`, oldest first; an empty list if it was never cut.

    Raises:
        LoadError: if its depthprune.json cannot be read, or was not written by depthprune.
    """
    file = folder / PROVENANCE_FILE
    if not file.is_file():
        return ()
    try:
        content = json.loads(file_inside(folder, PROVENANCE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(_broken(file, f"it cannot be read ({error})")) from None
    cuts = content.get("cuts", []) if isinstance(content, dict) else None
    if not isinstance(cuts, list):
        raise LoadError(_broken(file, "it has no list of cuts"))
    for number, cut in enumerate(cuts):
        try:
            _plans(cut)
        except (KeyError, TypeError, AttributeError, PlanError) as error:
            raise LoadError(_broken(file, f"cut {number} is not a plan ({error})")) from None
    return tuple(cuts)


def _broken(file: Path, what: str) -> str:
    return f"'{file}' was not written by depthprune: {what}; download it again, or remove it and with it the history"


def _plans(cut: Cut) -> dict[str, LayerPlan]:
    """Return stack name → plan of one cut, numbered in the model that it was given."""
    stacks = cut.get("stacks", {ONLY_STACK: cut})
    plans = {}
    for name, entry in stacks.items():
        plans[name] = LayerPlan.from_dict(entry)
    return plans


def original_kept(history: Iterable[Cut], stack: str, depth: int) -> tuple[int, ...]:
    """Return which layer of the first model each present layer of a stack is.

    Args:
        history: from `read_history`.
        stack: name of the stack.
        depth: its present depth.

    >>> original_kept([{"depth": 6, "dropped": [0]}, {"depth": 5, "dropped": [1, 4]}], "layers", 3)
    (1, 3, 4)

    Raises:
        LoadError: if the history ends with another depth, so that it is the history of another model.
    """
    kept = _trace(history, stack, depth)[1]
    if len(kept) != depth:
        raise LoadError(
            f"{PROVENANCE_FILE} tells of {len(kept)} layers in '{stack}' and the model has {depth}: it belongs to "
            "another model; remove it and number the layers of the model that is given"
        )
    return kept


def _trace(history: Iterable[Cut], stack: str, depth: int) -> tuple[int, tuple[int, ...]]:
    """Return the depth of the first model and which of its layers are left: all `depth` layers if there was no cut."""
    original_depth, kept = depth, None
    for cut in history:
        plan = _plan_of(cut, stack)
        if plan is None:
            continue
        if kept is None:
            original_depth, kept = plan.depth, tuple(range(plan.depth))
        if len(kept) != plan.depth:
            raise LoadError(
                f"{PROVENANCE_FILE} contradicts itself: one cut leaves {len(kept)} layers of '{stack}' and the next "
                f"starts from {plan.depth}; remove it and number the layers of the model that is given"
            )
        kept = tuple(kept[layer] for layer in plan.kept)
    return original_depth, tuple(range(depth)) if kept is None else kept


def _plan_of(cut: Cut, stack: str) -> LayerPlan | None:
    """Return what a cut did to a stack. The only stack of a model has had several names over time."""
    plans = _plans(cut)
    if stack not in plans and len(plans) == 1 and ONLY_STACK in (stack, *plans):
        return next(iter(plans.values()))
    return plans.get(stack)


def present_layers(history: Sequence[Cut]) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Return stack name → (depth of the first model, which of its layers are left), after all cuts.

    Raises:
        LoadError: if the recorded cuts contradict each other.
    """
    names = dict.fromkeys(name for cut in history for name in _plans(cut))
    if len(names) > 1:
        names.pop(ONLY_STACK, None)  # an older name of one of the others
    return {name: _trace(history, name, 0) for name in names}


def plan_from_original(
    history: Sequence[Cut],
    stack: str,
    depth: int,
    *,
    dropped: Iterable[int] | None = None,
    kept: Iterable[int] | None = None,
) -> LayerPlan:
    """Convert layers of the first model into a plan for the present model.

    Args:
        history: from `read_history`.
        stack: name of the stack.
        depth: its present depth.
        dropped: layers of the first model to drop, or
        kept: layers of the first model to keep. One of the two.

    >>> plan_from_original([{"depth": 6, "dropped": [0]}], "layers", 5, dropped=[1, 5]).dropped
    (0, 4)

    Raises:
        PlanError: if the first model did not have such a layer, or an earlier cut dropped it.
        LoadError: if the history is that of another model.
    """
    assert (dropped is None) != (kept is None), "either dropped or kept"
    present = original_kept(history, stack, depth)
    original_depth, _ = _trace(history, stack, depth)
    named = tuple(dropped if dropped is not None else kept or ())
    LayerPlan.from_kept(original_depth, named) if dropped is None else LayerPlan(original_depth, named)
    gone = sorted(set(named) - set(present))
    if gone:
        raise PlanError(
            f"layers {gone} of the original were already dropped from '{stack}', which has {format_layers(present)} of "
            f"its {original_depth}; name only those"
        )
    indices = tuple(present.index(layer) for layer in named)
    return LayerPlan(depth, indices) if dropped is not None else LayerPlan.from_kept(depth, indices)


def plans_from_original(
    folder: Path, depths: Mapping[str, int], choose: Callable[[Mapping[str, int]], Plans]
) -> dict[str, LayerPlan]:
    """Let the user choose layers of the first model, and convert the choice into plans for the present model.

    Args:
        folder: the present model.
        depths: its stacks: name → number of layers.
        choose: called with the depths of the first model; returns plans for it.

    Raises:
        PlanError, LoadError: see `plan_from_original`.
    """
    history = read_history(folder)
    plans = {}
    for name, plan in choose({name: _trace(history, name, depth)[0] for name, depth in depths.items()}).items():
        present = set(original_kept(history, name, depths[name]))
        # If all layers that were dropped earlier are named too, the kept ones give the same plan.
        if set(range(plan.depth)) - present <= set(plan.dropped):
            plans[name] = plan_from_original(history, name, depths[name], kept=plan.kept)
        else:
            plans[name] = plan_from_original(history, name, depths[name], dropped=plan.dropped)
    return plans


def provenance(
    source: ModelSource,
    plans: Plans,
    *,
    strategy: str | None = None,
    scores: Mapping[str, Sequence[float]] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of `depthprune.json` for a checkpoint cut from `source`.

    The history of a source that was cut before is included. A plan that drops nothing adds no cut. The weights are not
    read: `identity`, which hashes them, is recorded where it is known already, and `header_hash` always.

    Args:
        source: the model that was cut.
        plans: stack name → plan; `ONLY_STACK` where the model has one.
        strategy: name of the strategy.
        scores: stack name → score of every layer that was given, where there are any.
        more: further entries of the file.

    Raises:
        LoadError: if the source's own history is broken or does not fit.
    """
    history = read_history(source.path)
    cuts = list(history)
    if any(plan.dropped for plan in plans.values()):
        cut: Cut = {"source": source.name if source.commit is not None else Path(source.name).resolve().name}
        if source.commit is not None or "identity" in vars(source):
            cut["identity"] = source.identity
        cut["header_hash"] = header_hash(source)
        cut["stacks"] = {name: _stack_entry(history, name, plan) for name, plan in plans.items()}
        cut |= {"strategy": strategy} if strategy is not None else {}
        cut |= {"scores": {name: list(values) for name, values in scores.items()}} if scores is not None else {}
        cuts.append(cut)
    return {"cuts": cuts, "packages": versions(), **(more or {})}


def _stack_entry(history: Sequence[Cut], name: str, plan: LayerPlan) -> dict[str, Any]:
    present = original_kept(history, name, plan.depth)
    return {
        **plan.to_dict(),
        "original_depth": _trace(history, name, plan.depth)[0],
        "original_dropped": [present[layer] for layer in plan.dropped],
        "original_kept": [present[layer] for layer in plan.kept],
    }


def header_hash(source: ModelSource) -> str:
    """Return the hash of the configuration and of the headers and sizes of the weights: cheap, whatever the size.

    It distinguishes architectures, names, dtypes, shapes and sizes, but not values, which `ModelSource.identity` does.
    A pickle has no header and is hashed completely.
    """
    digest = hashlib.sha256()
    for file in (source.path / "config.json", *source.weights):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        with file.open("rb") as stream:
            if file.suffix == ".safetensors":
                size = min(int.from_bytes(stream.read(8), "little"), size)
            while size > 0 and (block := stream.read(min(size, 1 << 20))):
                digest.update(block)
                size -= len(block)
    return f"sha256:{digest.hexdigest()}"
