"""`depthprune inspect`: what is in a model and what each strategy would drop."""

from typing import TYPE_CHECKING

from depthprune.cli import options

if TYPE_CHECKING:
    from depthprune.sources import ModelSource


def inspect(
    model: options.Model,
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Show a model's stacks, each layer's parameters, and what each strategy would drop at each count."""
    from depthprune.cli.display import console
    from depthprune.sources import locate

    source = locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    stacks = _from_headers(source) or _from_modules(source)
    what, total, found = stacks
    console.print(f"{model}: {what}, {total:,} parameters", highlight=False, soft_wrap=True)
    for name, path, depth_key, sizes in found:
        if not path:
            console.print(f"{len(sizes)} passes ({depth_key}) through the weights of one layer; their number can fall")
            console.print("only --strategy top applies: layers cannot be told apart")
            continue
        share = f"{100 * sum(sizes) / total:.1f} % of the parameters"
        console.print(f"stack '{name}' at {path}: {len(sizes)} layers ({depth_key}), {share}")
        for layer, size in enumerate(sizes):
            console.print(f"  layer {layer:>2}  {size:,} parameters")
        console.print(_choices(len(sizes)))


Found = tuple[str, int, list[tuple[str, str, str, list[int]]]]


def _from_headers(source: "ModelSource") -> Found | None:
    """Read the headers of the weights alone, where names and config.json leave no doubt about the stack."""
    from math import prod

    from depthprune.surgery.checkpoint import read_checkpoint
    from depthprune.surgery.cut import stacks_in_plain_sight

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
        found.append((stack.name, stack.path, stack.depth_key, sizes))
    what = (source.config.get("architectures") or [source.config["model_type"]])[0]
    return what, sum(prod(tensor.shape) for tensor in checkpoint.tensors.values()), found


def _from_modules(source: "ModelSource") -> Found:
    options.quiet_libraries()
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
        sizes = [sum(num_parameters(module) for module in modules) for modules in parts]
        found.append((stack.name, ", ".join(stack.paths), stack.depth_key, sizes))
    return chosen.__name__, num_parameters(skeleton), found


def _choices(depth: int):
    from rich.table import Table

    from depthprune.plan import format_layers
    from depthprune.strategies import choose, possible_counts, registry

    table = Table(title="layers that each strategy drops, by count", title_justify="left")
    table.add_column("count", justify="right")
    for name in registry.names():
        table.add_column(name)
    for count in range(1, depth):
        cells = [
            format_layers(choose(name, depth, count).dropped) if count in possible_counts(name, depth) else "–"
            for name in registry.names()
        ]
        table.add_row(str(count), *cells)
    return table
