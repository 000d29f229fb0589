"""A stack of layers as a value: its name, where it is, and what a drop makes of the names inside it. No torch.

A stack lies in a model, under the dotted paths of its module lists, or in a checkpoint, under what stands before the
layer index in the names of its tensors. The two need not be the same: ViT stores `encoder.layer.0…` for a module under
`layers.0`. So they are two types, `ModuleStack` and `TensorStack`, and a plan for the one cannot be carried out on the
other.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NewType, TypeVar, cast

from depthprune.errors import PlanError
from depthprune.plan import LayerPlan, choose_stack

LAYER_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
STAGE_KEYS = ("depths", "depth", "block_sizes")  # lists with the depth of each stage
# Modules that only the first layer of a stack owns and every layer uses: they move to the new first layer, with the
# flag that says so. Innermost part of the module's name → attribute of the module that owns it.
FIRST_LAYER_ONLY = {
    "relative_attention_bias": "has_relative_attention_bias",
    "global_relative_attention_bias": "has_relative_attention_bias",
    "rel_attn_embed": "has_relative_position_bias",
}


ModulePath = NewType("ModulePath", str)  # of a module list in a model, such as `vit.layers`
TensorPrefix = NewType("TensorPrefix", str)  # of the layers' tensors in a checkpoint, such as `vit.encoder.layer`
Path = TypeVar("Path", bound=str)


@dataclass(frozen=True)
class Stack(Generic[Path]):
    """A list of layers in a model, or several parallel lists that hold the parts of the same layers (XLM).

    Args:
        name: for users: `layers`, or `encoder` and `decoder` where there are two.
        paths: of its module lists in the model, or of its tensors in the checkpoint; none where one layer serves every
            pass (ALBERT).
        depth_key: dotted path of the entry of the configuration that holds its depth.
        depth: number of layers.
    """

    name: str
    paths: tuple[Path, ...]
    depth_key: str
    depth: int

    @property
    def path(self) -> str:
        """The first of its paths."""
        return self.paths[0] if self.paths else ""

    def split(self, name: str) -> tuple[Path, int, str] | None:
        """Split a tensor or module name into list, layer and rest, or return None outside the stack.

        >>> stack = Stack("layers", ("encoder.layer",), "num_hidden_layers", 6)
        >>> stack.split("encoder.layer.3.output.dense.bias")
        ('encoder.layer', 3, 'output.dense.bias')
        """
        for path in self.paths:
            if name.startswith(path + "."):
                index, _, rest = name[len(path) + 1 :].partition(".")
                if LAYER_INDEX.fullmatch(index):
                    return path, int(index), rest
        return None

    def layer_of(self, name: str) -> tuple[int, str] | None:
        """Return the layer that a tensor or module belongs to and the rest of its name, or None outside the stack."""
        found = self.split(name)
        return None if found is None else found[1:]


ModuleStack = Stack[ModulePath]
TensorStack = Stack[TensorPrefix]
StackPlans = Mapping[Stack[Any], LayerPlan]  # of either kind, where only names and configurations are looked at
ModulePlans = Mapping[ModuleStack, LayerPlan]
TensorPlans = Mapping[TensorStack, LayerPlan]


def depths_of(stacks: Mapping[str, Stack[Any]]) -> dict[str, int]:
    """Return stack name → number of layers."""
    return {name: stack.depth for name, stack in stacks.items()}


def join(path: str, layer: int, rest: str) -> str:
    """Join what `Stack.split` splits."""
    return f"{path}.{layer}" + (f".{rest}" if rest else "")


def new_names(names: Iterable[str], plans: StackPlans) -> dict[str, str]:
    """Return old name → new name of every tensor or module that is kept, in the given order.

    Modules that the first layer owns and all layers use are kept with the new first layer.

    >>> stack = Stack("layers", ("h",), "n_layer", 3)
    >>> new_names(["h.0.w", "h.1.w", "h.2.w", "norm.w"], {stack: LayerPlan(3, (1,))})
    {'h.0.w': 'h.0.w', 'h.2.w': 'h.1.w', 'norm.w': 'norm.w'}
    """
    names = list(names)
    known = set(names)
    new: dict[str, str] = {}
    for name in names:
        stack, found = next(((s, found) for s in plans if (found := s.split(name)) is not None), (None, None))
        if stack is None or found is None:
            new[name] = name
            continue
        path, layer, rest = found
        index = plans[stack].new_index(layer)
        if index is not None:
            new[name] = join(path, index, rest)
        elif layer == 0 and any(part in FIRST_LAYER_ONLY for part in rest.split(".")):
            first = plans[stack].kept[0]
            if join(path, first, rest) not in known:
                new[name] = name
    return new


def match_plans(
    stacks: Mapping[str, Stack[Path]], plan: LayerPlan | Iterable[int] | Mapping[str, LayerPlan | Iterable[int]]
) -> dict[Stack[Path], LayerPlan]:
    """Match plans with stacks; a list of layers is the plan that drops them.

    Here what a caller says of stacks by name becomes what surgery carries out.

    Raises:
        PlanError: if a single plan is given for several stacks, a stack is unknown, or a plan is for another depth.
    """
    depths = depths_of(stacks)
    named: dict[str, LayerPlan | Iterable[int]]
    if isinstance(plan, Mapping):
        named = dict(cast("Mapping[str, LayerPlan | Iterable[int]]", plan))
    else:
        named = {choose_stack(depths, advice="say which one each plan is for"): plan}
    plans = {}
    for name, stack_plan in named.items():
        choose_stack(depths, name, advice="")
        if not isinstance(stack_plan, LayerPlan):
            stack_plan = LayerPlan(stacks[name].depth, tuple(stack_plan))
        if stack_plan.depth != stacks[name].depth:
            raise PlanError(
                f"the plan is for {stack_plan.depth} layers and the stack '{name}' has {stacks[name].depth}; "
                f"make it with LayerPlan({stacks[name].depth}, …)"
            )
        plans[stacks[name]] = stack_plan
    return plans


def stack_names(keys_and_paths: Mapping[str, str]) -> dict[str, str]:
    """Name the stacks of a model: depth key → name, from depth key → path of the first module list.

    >>> stack_names({"encoder_layers": "encoder.layers", "decoder_layers": "decoder.layers"})
    {'encoder_layers': 'encoder', 'decoder_layers': 'decoder'}
    >>> stack_names({"n_layer": "transformer.h"})
    {'n_layer': 'layers'}
    """
    if len(keys_and_paths) == 1:
        return dict.fromkeys(keys_and_paths, "layers")
    names = {key: _name(key, path) for key, path in keys_and_paths.items()}
    taken = list(names.values())
    return {key: name if taken.count(name) == 1 else keys_and_paths[key] for key, name in names.items()}


def _name(depth_key: str, path: str) -> str:
    *outer, last = depth_key.split(".")
    words = [part.removesuffix("_config").removesuffix("_model") for part in outer if part not in STAGE_KEYS]
    if last.isdigit():
        return ".".join([*words, f"stage{last}"])
    inner = last.removeprefix("num_").removesuffix("_layers").removesuffix("_num_hidden")
    if inner in ("hidden", "layers", "n", "n_layer", "layer", "depth", "blocks", "layers_block_type") or len(inner) < 3:
        inner = next((word for word in ("encoder", "decoder") if word in path.split(".")), "")
    if words and inner in ("encoder", "decoder") and words[-1] not in ("text", "vision", "audio"):
        return ".".join([*words, inner]) if words[-1] not in ("encoder", "decoder") else ".".join(words)
    return ".".join(words) or inner or path
