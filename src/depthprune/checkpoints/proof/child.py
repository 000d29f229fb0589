"""The proof of a streamed cut, run as a child process that `client.py` starts.

It reads requests from standard input, a line of JSON each, and answers on standard output. Both configurations are read
through their classes, which the copying process did not do, so that two independent readings must agree: the new
configuration must be the old one with the plan applied, the model built from it must take exactly the kept tensors, and
every tensor must be loaded into the layer that the plan says, whatever transformers renames while loading. The new
folder has sparse files with headers; loading it on the meta device reads no weights.

Requests: `describe` (the stacks, with the checkpoint's names for them), `prove`, `logits` (run both models, with the
dropped layers bypassed in the old one). If a configuration class derives an entry from a formula that no longer fits
(ModernBERT's `layer_types` from `global_attn_every_n_layers`), the answer to `prove` has `say`: the entries that the
new config.json has to spell out; the rest was not checked.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.modeling_utils import load_state_dict

from depthprune.checkpoints.layout import read_checkpoint, split_name
from depthprune.checkpoints.proof.client import SOURCES_FILE
from depthprune.checkpoints.proof.loaded import cache_bytes_per_token, module_names
from depthprune.errors import CannotDropError, UserError
from depthprune.loading import load_config, model_class
from depthprune.plan import LayerPlan
from depthprune.sources import ModelSource
from depthprune.surgery.config.depth import DEPTH_KEYS
from depthprune.surgery.config.entries import KNOWN
from depthprune.surgery.coverage import source_beyond_census
from depthprune.surgery.modules import REFUSALS, differences, first_line, meta_model, probe_stacks, pruned_config
from depthprune.surgery.proof.comparison import check_drop
from depthprune.surgery.proof.outputs import same_logits
from depthprune.surgery.stacks import ModulePlans, ModuleStack, new_names

Answer = dict[str, Any]


def describe(request: Mapping[str, Any]) -> Answer:
    """Return the stacks of a model, with the prefix before the layer index in its checkpoint's names."""
    source = _source(Path(request["source"]), request)
    chosen, config = model_class(source)
    stacks = probe_stacks(chosen, config)
    names = module_names(meta_model(chosen, config), read_checkpoint(source.path).tensors)
    return {
        "stacks": [
            {
                "name": stack.name,
                "modules": stack.paths,
                "prefixes": _prefixes(stack, names),
                "depth_key": stack.depth_key,
                "depth": stack.depth,
            }
            for stack in stacks.values()
        ]
    }


def prove(request: Mapping[str, Any]) -> Answer:
    """Check a cut; see the module's docstring.

    Raises:
        UserError: if the cut is not exact; the message says where.
    """
    old, new = (_source(Path(request[key]), request) for key in ("source", "new"))
    chosen, config = model_class(old)
    new_config = load_config(new)
    plans = _plans(probe_stacks(chosen, config), request["plans"], config)
    expected, found = pruned_config(config, plans, chosen).to_dict(), new_config.to_dict()
    odd = differences(expected, found)
    made_up = {name: _at(expected, name) for name in odd if _may_be_said(name, old.config)}
    if odd and set(made_up) == set(odd):
        return {"say": made_up}
    if odd:
        raise CannotDropError(
            f"the edited config.json says {odd[0]} = {_at(found, odd[0])!r} where the plan makes it "
            f"{_at(expected, odd[0])!r}; nothing was saved, please report it"
        )
    new_config.name_or_path = config.name_or_path  # configurations record the path that they were loaded from
    checked = check_drop(chosen, config, new_config, plans)
    whole = checked.whole
    _check_places(whole, checked.model, old, new, plans)
    answer: Answer = {"how": _check_loading(chosen, old, new), "class": chosen.__name__}
    if request.get("cache"):
        answer["cache_bytes_per_token"] = [cache_bytes_per_token(model) for model in (whole, checked.model)]
    return answer


def logits(request: Mapping[str, Any]) -> Answer:
    """Run the written model and the old one with the dropped layers bypassed, on the same batch.

    Raises:
        CannotDropError: if the outputs differ, or no input can be generated.
    """
    old, new = (_source(Path(request[key]), request) for key in ("source", "new"))
    chosen, config = model_class(old)
    plans = _plans(probe_stacks(chosen, config), request["plans"], config)
    losing = [stack.depth_key for stack, plan in plans.items() if plan.dropped]
    return {"logits": same_logits(chosen, old.path, new.path, plans, source_beyond_census(old, losing))}


def _source(folder: Path, request: Mapping[str, Any]) -> ModelSource:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return ModelSource(str(folder), folder, None, config, trust_remote_code=request["trust_remote_code"])


def _plans(stacks: Mapping[str, ModuleStack], asked: Mapping[str, Any], config: Any) -> dict[ModuleStack, LayerPlan]:
    """Find the stack of each plan by its depth key, which may have another name in config.json than in the class."""
    by_key = {stack.depth_key: stack for stack in stacks.values()}
    plans = {}
    for key, values in asked.items():
        plan = LayerPlan.from_dict(values)
        *outer, last = key.split(".")
        inner = config
        for part in outer:
            inner = getattr(inner, part, inner)
        canonical = ".".join([*outer, getattr(inner, "attribute_map", {}).get(last, last)])
        stack = by_key.get(key) or by_key.get(canonical)
        if stack is None or stack.depth != plan.depth:
            raise CannotDropError(f"{key} of the config.json is not the depth of a stack of {plan.depth} layers")
        plans[stack] = plan
    return plans


def _prefixes(stack: ModuleStack, names: Mapping[str, str]) -> list[str]:
    """Return the prefix before the layer index in the checkpoint's names, for each module list of a stack."""
    found = []
    for path in stack.paths:
        shared: set[str] | None = None
        for name, module_name in names.items():
            place = stack.split(module_name)
            if place is None or place[0] != path:
                continue
            parts = name.split(".")
            here = {".".join(parts[:at]) for at, part in enumerate(parts) if part == str(place[1])}
            shared = here if shared is None else shared & here
        if not shared:
            raise CannotDropError(
                f"the weights have no tensor for the stack '{stack.name}'; download the model again"
                if shared is None
                else f"the checkpoint's names do not show which tensors belong to the stack '{stack.name}'; "
                "use drop_layers on the loaded model"
            )
        found.append(min(shared, key=len))
    return found


def _check_places(whole: Any, shorter: Any, old: ModelSource, new: ModelSource, plans: ModulePlans) -> None:
    """Check that every kept tensor, and no other, is loaded into the right module, whatever its name in the file.

    The copying process says which tensor is copied under each new name; where it belongs is derived here, from the
    names under which the two models load it.
    """
    sources = json.loads((new.path / SOURCES_FILE).read_text(encoding="utf-8"))
    given, written = read_checkpoint(old.path).tensors, read_checkpoint(new.path).tensors
    before, after = module_names(whole, given), module_names(shorter, written)
    expected = new_names(dict.fromkeys(before.values()), plans)
    lost = {name for name, module in before.items() if module in expected} - set(sources.values())
    if lost or sources.keys() != written.keys() or len(set(sources.values())) < len(sources):
        odd = sorted(lost or sources.keys() ^ written.keys() or sources)[0]
        raise CannotDropError(f"'{odd}' is not copied exactly once; nothing was saved, please report it")
    for name, source in sources.items():
        module = before.get(source)
        target = expected.get(module) if module is not None else None
        named = {name} if module is None or target is None else _renamed(source, module, target, plans)
        if after.get(name) != target or name not in named or written[name].dtype != given[source].dtype:
            raise CannotDropError(
                f"'{name}' would be copied from '{source}', the wrong place; nothing was saved, please report it"
            )


def _renamed(source: str, module: str, target: str, plans: ModulePlans) -> set[str]:
    """Return a tensor's name with the layer index changed as in its module's name, or unchanged if that is.

    Tensors that are fused while loading share a module, so that the module alone does not identify them.
    """
    places = [(stack.split(module), stack.split(target)) for stack in plans]
    layer, index = next(((old[1], new[1]) for old, new in places if old is not None and new is not None), (0, 0))
    if layer == index:
        return {source}
    parts = source.split(".")
    at = (i for i, part in enumerate(parts) if part == str(layer))
    return {".".join([*parts[:i], str(index), *parts[i + 1 :]]) for i in at}


def _may_be_said(name: str, config: Mapping[str, Any]) -> bool:
    """Return whether an entry about layers may be left to the class by config.json."""
    parts = name.split(".")
    known = any(part in KNOWN or part in DEPTH_KEYS for part in parts)
    return known and _at(config, name) is None


def _at(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def _check_loading(chosen: Any, old: ModelSource, new: ModelSource) -> str:
    """Load the new checkpoint on the meta device: nothing may be missing or unexpected that was not in the old one."""
    try:
        after = _loading_info(chosen, new)
    except (ImportError, OSError, *REFUSALS) as error:
        if "quantization_config" in old.config and not _loads(chosen, old):
            return f"headers only, since its quantiser cannot run here ({first_line(error)})"
        raise CannotDropError(f"the cut checkpoint cannot be loaded: {first_line(error)}") from None
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    if not any(after[kind] for kind in kinds):
        return "loaded"
    before = _loading_info(chosen, old)
    for kind in kinds:
        more = sorted(map(str, set(after[kind]) - set(before[kind])))
        if more:
            raise CannotDropError(f"the cut checkpoint has {kind.replace('_', ' ')}: {more[:3]}; nothing was saved")
        if before[kind] and kind != "unexpected_keys" and _in_a_stack(before[kind]):
            raise CannotDropError(
                f"the source itself has {kind.replace('_', ' ')}: {sorted(map(str, before[kind]))[:3]}"
            )
    return "loaded"


def _loading_info(chosen: Any, source: ModelSource) -> dict[str, Any]:
    """Load from meta tensors with shape and dtype: from files, every tensor would be read."""
    how = {"device_map": "meta", "dtype": "auto", "output_loading_info": True}
    try:
        tensors = {
            name: tensor
            for file in sorted({entry.file for entry in read_checkpoint(source.path).tensors.values()})
            for name, tensor in load_state_dict(file, map_location="meta").items()
        }
    except ValueError:  # a dtype that torch has no tensor for
        return chosen.from_pretrained(source.path, **how)[1]
    return chosen.from_pretrained(None, config=load_config(source), state_dict=tensors, **how)[1]


def _loads(chosen: Any, source: ModelSource) -> bool:
    try:
        _loading_info(chosen, source)
    except (ImportError, OSError, *REFUSALS):
        return False
    return True


def _in_a_stack(names: Any) -> bool:
    return any(split_name(str(name)) is not None for name in names)


def main() -> None:
    """Answer requests until standard input ends."""
    # Only answers go to standard output; whatever libraries print goes to standard error.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    asked = {"describe": describe, "prove": prove, "logits": logits}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = asked[request["do"]](request)
        except UserError as error:
            answer = {"refused": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
