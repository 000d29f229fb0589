"""`depthprune inspect`: what is in a model and what each strategy would drop."""

from depthprune.cli import options


def inspect(
    model: options.Model,
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Show a model's stacks, each layer's parameters, and what each strategy would drop at each count."""
    from depthprune.cli.options import quiet_libraries
    from depthprune.loading import model_class
    from depthprune.sources import locate

    source = locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    quiet_libraries()
    from depthprune.cli.display import console
    from depthprune.profiling.footprint import num_parameters
    from depthprune.surgery.modules import meta_model, probe_stacks

    chosen, config = model_class(source)
    stacks = probe_stacks(chosen, config)
    skeleton = meta_model(chosen, config)
    total = num_parameters(skeleton)
    console.print(f"{model}: {chosen.__name__}, {total:,} parameters", highlight=False, soft_wrap=True)
    for stack in stacks.values():
        sizes = [num_parameters(layer) for layer in skeleton.get_submodule(stack.path).children()]
        share = f"{100 * sum(sizes) / total:.1f} % of the parameters"
        console.print(f"stack '{stack.name}' at {stack.path}: {stack.depth} layers ({stack.depth_key}), {share}")
        for layer, size in enumerate(sizes):
            console.print(f"  layer {layer:>2}  {size:,} parameters")
        console.print(_choices(stack.depth))


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
