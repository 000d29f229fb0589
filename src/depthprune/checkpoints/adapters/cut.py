"""Cut PEFT adapters together with their base model: the same layers are dropped, the others renumbered. No torch.

An adapter's folder holds `adapter_config.json` and `adapter_model.safetensors`, whose tensors are named after the
modules of the model: `base_model.model.` before, the adapter's own parameter behind. Further adapters may lie in
subfolders. The bytes of what stays are copied, and compared with the source afterwards.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, overload

from depthprune.checkpoints.adapters.config import METHODS, WITH_INPUTS, cut_config
from depthprune.checkpoints.card import CARD_FILE, adapter_card
from depthprune.checkpoints.companions import beside, copy_files
from depthprune.checkpoints.copying import compare_file, write_file
from depthprune.checkpoints.cut import Cut, Piece
from depthprune.checkpoints.header import parse_config, read_file
from depthprune.checkpoints.history import PROVENANCE_FILE
from depthprune.checkpoints.layout import Checkpoint, file_inside, split_name
from depthprune.errors import CannotDropError, LoadError
from depthprune.output import check_outside, whole_folder
from depthprune.plan import LayerPlan
from depthprune.result_file import replace_json
from depthprune.surgery.stacks import LAYER_INDEX, Stack, StackPlans, TensorPrefix, TensorStack, new_names

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"
PREFIX = "base_model.model."
TRAINER_FOLDER = re.compile(r"checkpoint-\d+")


def cut_adapter(
    folder: Path, target: Path, *, plans: StackPlans, base_model: str, provenance: Mapping[str, Any] | None = None
) -> dict[str, Cut]:
    """Write what `plans` leave of the adapters in `folder` to `target`, whole or not at all.

    Args:
        folder: an adapter's folder, which may hold further adapters in subfolders.
        target: a folder that does not exist or is empty.
        plans: all stacks of the adapter's base model, including those that lose no layer. Their paths may be those of
            the modules or of the checkpoint, with or without the head; if these differ, give both.
        base_model: what the new adapter names as its model: the path or Hub id of the cut model.
        provenance: content of `depthprune.json`, if any.

    Returns:
        Subfolder (empty for the folder itself) → what was cut.

    Raises:
        CannotDropError: if the adapter's method does not allow the cut, or the tensor names do not show which stack
            they belong to; nothing is written.
        LoadError: if the folder holds no adapter, or a broken one.
        OutputError: if the target exists already, or there is no space.
    """
    cuts = {name: plan_adapter(folder / name, plans, base_model=base_model) for name in _adapters(folder)}
    check_outside(target, folder)
    with whole_folder(target, num_bytes=sum(cut.kept_bytes for cut in cuts.values())) as partial:
        for name, cut in cuts.items():
            place = partial / name
            copy_files(folder / name, place, beside(folder / name))
            place.mkdir(parents=True, exist_ok=True)
            write_file(place / WEIGHTS_FILE, list(cut.kept), cut)
            compare_file(place / WEIGHTS_FILE, list(cut.kept), cut)
            replace_json(place / CONFIG_FILE, cut.config)
            if provenance is not None:
                replace_json(place / PROVENANCE_FILE, provenance)
            if (folder / name / CARD_FILE).is_file():
                card = file_inside(folder / name, CARD_FILE).read_text(encoding="utf-8", errors="replace")
                (place / CARD_FILE).write_text(adapter_card(card, base_model=base_model), encoding="utf-8")
    return cuts


def _adapters(folder: Path) -> list[str]:
    """Return where the adapters in a folder are, without the checkpoints of a training."""
    names = sorted(file.parent.name for file in folder.glob(f"*/{CONFIG_FILE}"))
    found = [name for name in names if not TRAINER_FOLDER.fullmatch(name)]
    if (folder / CONFIG_FILE).is_file():
        found.insert(0, "")
    if not found:
        raise LoadError(f"'{folder}' has no {CONFIG_FILE}; give the folder of a PEFT adapter")
    return found


def plan_adapter(folder: Path, plans: StackPlans, *, base_model: str) -> Cut:
    """Plan the cut of one adapter; writes nothing.

    Raises:
        CannotDropError: see `cut_adapter`.
        LoadError: if the adapter is broken.
    """
    config = _config(folder)
    if not (folder / WEIGHTS_FILE).exists():
        if (folder / PICKLE_FILE).exists():
            raise LoadError(
                f"'{folder}' has its weights in a pickle ({PICKLE_FILE}), which can run code when it is read; load it "
                "with peft and save it again with save_pretrained"
            )
        raise LoadError(f"'{folder}' lacks {WEIGHTS_FILE}; download the adapter again")
    tensors, metadata = read_file(file_inside(folder, WEIGHTS_FILE))
    checkpoint = Checkpoint({tensor.name: tensor for tensor in tensors}, metadata, 0, False)
    try:
        _check_method(config.get("peft_type"))
        placed = _placed(checkpoint.tensors, plans)
        names = new_names(checkpoint.tensors, placed)
        kept = {new: Piece(checkpoint.tensors[old]) for old, new in names.items()}
        new_config = cut_config(config, {_inside(old): _inside(names.get(old)) for old in checkpoint.tensors})
    except (CannotDropError, re.error) as error:
        what = (
            f"an entry of its {CONFIG_FILE} is not a valid pattern ({error})" if isinstance(error, re.error) else error
        )
        raise CannotDropError(f"the adapter '{folder}' cannot be cut along: {what}") from None
    new_config |= {"base_model_name_or_path": base_model, "revision": None}
    stay = {piece.tensor.name for piece in kept.values()}
    dropped = tuple(tensor for name, tensor in checkpoint.tensors.items() if name not in stay)
    return Cut(placed, kept, dropped, new_config, checkpoint)


def _check_method(method: Any) -> None:
    """Check that an adapter's method is like LoRA.

    Raises:
        CannotDropError: if the method is another one; the message says what to do instead.
    """
    if isinstance(method, str) and method in METHODS:
        return
    known = ", ".join(METHODS)
    if method in WITH_INPUTS:
        raise CannotDropError(
            f"only adapters of {known} are, and {method} cannot be merged; train one for the shorter model"
        )
    raise CannotDropError(
        f"only adapters of {known} are, not of {method!r}: merge it into the model first (merge_and_unload of peft), "
        "then drop layers of the result"
    )


def _config(folder: Path) -> dict[str, Any]:
    file = file_inside(folder, CONFIG_FILE)
    config = parse_config(file.read_bytes(), f"'{file}'")
    if not isinstance(config, dict):
        raise LoadError(f"'{file}' is not an object; download the adapter again")
    return config


@overload
def _inside(name: str) -> str: ...
@overload
def _inside(name: None) -> None: ...
def _inside(name: str | None) -> str | None:
    return None if name is None else name.removeprefix(PREFIX)


def _placed(names: Iterable[str], plans: StackPlans) -> dict[TensorStack, LayerPlan]:
    """Return the stacks by the paths that they have in the names of an adapter's tensors.

    Raises:
        CannotDropError: if a list of layers matches two stacks, two lists match one stack, or a list has layers beyond
            the depth.
    """
    found: dict[tuple[Stack, str], str] = {}
    strangers: set[str] = set()
    for name in map(_inside, names):
        place = _place(name, plans)
        if place is None:
            strangers |= {split[0]} if (split := split_name(name)) else set()
            continue
        stack, path, prefix, layer = place
        if found.setdefault((stack, path), prefix) != prefix:
            raise CannotDropError(f"both '{found[stack, path]}' and '{prefix}' could be the stack '{stack.name}'")
        if layer >= stack.depth:
            raise CannotDropError(
                f"it has a layer {layer} in '{prefix}', and the stack '{stack.name}' of the model has {stack.depth}; "
                "give the adapter of this model"
            )
    known = {stack for stack, _ in found}
    lost = [stack for stack, plan in plans.items() if plan.dropped and stack not in known]
    if lost and strangers:
        raise CannotDropError(
            f"none of its lists of layers ({', '.join(sorted(strangers))}) is the stack '{lost[0].name}' "
            f"({', '.join(lost[0].paths)}); give the adapter of this model"
        )
    paths = {
        stack: tuple(TensorPrefix(PREFIX + prefix) for (own, _), prefix in found.items() if own == stack)
        for stack in known
    }
    return {
        TensorStack(stack.name, paths[stack], stack.depth_key, stack.depth): plan
        for stack, plan in plans.items()
        if stack in known
    }


def _place(name: str, plans: StackPlans) -> tuple[Stack, str, str, int] | None:
    """Return the stack, its path, the path in the adapter, and the layer of a tensor; None outside the stacks.

    A path matches if the shorter is a suffix of the longer: models are saved with and without their heads.
    """
    parts = name.split(".")
    listed = [(stack, path) for stack in plans for path in stack.paths]
    fitting: list[tuple[int, Stack, str, str, int]] = []
    for at in (at for at, part in enumerate(parts) if at and LAYER_INDEX.fullmatch(part)):
        for stack, path in listed:
            own = path.split(".")
            size = min(at, len(own))
            if parts[at - size : at] == own[-size:]:
                fitting.append((size, stack, path, ".".join(parts[:at]), int(parts[at])))
    if not fitting:
        return None
    best = max(fitting, key=lambda fit: fit[0])  # of equal ones the first, which is the outermost list
    rivals = {stack.name for size, stack, _, prefix, _ in fitting if (size, prefix) == (best[0], best[3])}
    if len(rivals) > 1:
        raise CannotDropError(f"'{best[3]}' could be any of the stacks {', '.join(sorted(rivals))}")
    return best[1:]
