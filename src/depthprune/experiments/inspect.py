"""Inspect a checkpoint: its stacks, and the parameters of each layer. This module has `depthprune.inspect`."""

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from depthprune.arguments import checked
from depthprune.plan import LayerPlan
from depthprune.quiet import quietly
from depthprune.sources import ModelSource, locate
from depthprune.tasks.heads import has_pooled_head, head_labels, own_head


@dataclass(frozen=True)
class InspectedStack:
    """A stack of layers in a checkpoint.

    Args:
        name: in plans: `layers`, or `encoder` and `decoder` if there are two.
        path: of its modules; empty if all passes share one layer.
        depth_key: the entry of config.json with the number of layers.
        parameters: of each layer.
    """

    name: str
    path: str
    depth_key: str
    parameters: tuple[int, ...]

    @property
    def depth(self) -> int:
        """The number of layers."""
        return len(self.parameters)

    def choices(self, count: int) -> dict[str, LayerPlan]:
        """Return what each strategy by position would drop; those that do not support the count are left out."""
        from depthprune.strategies import choose, possible_counts, registry

        return {
            name: choose(name, self.depth, count)
            for name in registry.names()
            if count in possible_counts(name, self.depth)
        }


@dataclass(frozen=True)
class Inspection:
    """The contents of a checkpoint.

    Args:
        model: as it was asked for.
        class_name: of the model.
        parameters: in all; a pooled head, which is a file of its own, does not count.
        stacks: in the order of the modules.
        head: how the states are pooled that a pooled head reads; empty without one.
        outputs: names of that head's outputs.
    """

    model: str
    class_name: str
    parameters: int
    stacks: tuple[InspectedStack, ...]
    head: str = ""
    outputs: tuple[str, ...] = ()


@checked("inspect")
def inspect(model: str | Path, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> Inspection:
    """Return a model's stacks with the parameters of each layer. This is `depthprune.inspect`.

    Only the headers of the weights are read if tensor names and config.json identify the stack.

    Args:
        model: a local folder or a Hub id.
        allow_pickle: read weights from .bin files.
        trust_remote_code: run the model's own modelling code.

    Raises:
        UserError: for anything that the user can fix; the message is one line.
    """
    source = locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    found = _from_headers(source) or _from_modules(source)
    if not has_pooled_head(source.config):
        return found
    return replace(found, head=own_head(source.config), outputs=head_labels(source.config) or ())


def _from_headers(source: ModelSource) -> Inspection | None:
    from depthprune.checkpoints.cut import stacks_in_plain_sight
    from depthprune.checkpoints.layout import read_checkpoint

    if source.weights[0].suffix != ".safetensors":
        return None
    checkpoint = read_checkpoint(source.path)
    stacks = stacks_in_plain_sight(source, checkpoint)
    if stacks is None:
        return None
    found = []
    for stack in stacks.values():
        sizes = [0] * stack.depth
        for name, tensor in checkpoint.tensors.items():
            place = stack.layer_of(name)
            if place is not None and place[0] < stack.depth:
                sizes[place[0]] += prod(tensor.shape)
        found.append(InspectedStack(stack.name, stack.path, stack.depth_key, tuple(sizes)))
    what = (source.config.get("architectures") or [source.config["model_type"]])[0]
    return Inspection(source.name, what, sum(prod(t.shape) for t in checkpoint.tensors.values()), tuple(found))


@quietly()
def _from_modules(source: ModelSource) -> Inspection:
    from depthprune.loading import model_class
    from depthprune.profiling.footprint import num_parameters
    from depthprune.surgery.modules import meta_model, probe_stacks

    chosen, config = model_class(source)
    stacks = probe_stacks(chosen, config)
    skeleton = meta_model(chosen, config)
    found = []
    for stack in stacks.values():
        lists = [list(skeleton.get_submodule(path).children()) for path in stack.paths]
        parts = zip(*lists, strict=True) if lists else [()] * stack.depth
        sizes = tuple(sum(num_parameters(module) for module in modules) for modules in parts)
        found.append(InspectedStack(stack.name, ", ".join(stack.paths), stack.depth_key, sizes))
    return Inspection(source.name, chosen.__name__, num_parameters(skeleton), tuple(found))
