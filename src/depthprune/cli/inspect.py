"""`depthprune inspect`: what is in a model and what each strategy would drop."""

from typing import TYPE_CHECKING

from depthprune.cli import options

if TYPE_CHECKING:
    from depthprune.experiments.inspect import InspectedStack


def inspect(
    model: options.Model,
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Show a model's stacks, each layer's parameters, and what each strategy would drop at each count."""
    from depthprune.cli.display import console
    from depthprune.experiments.inspect import inspect as look_into

    found = look_into(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    console.print(
        f"{model}: {found.class_name}, {found.parameters:,} parameters", highlight=False, markup=False, soft_wrap=True
    )
    if found.head:
        outputs = ", ".join(found.outputs)
        console.print(
            f"head on states pooled by {found.head}: {outputs}", highlight=False, markup=False, soft_wrap=True
        )
    for stack in found.stacks:
        if not stack.path:
            console.print(f"{stack.depth} passes ({stack.depth_key}) through one layer; their number can be reduced")
            console.print("only --strategy top applies: the passes are identical")
            continue
        share = f"{100 * sum(stack.parameters) / found.parameters:.1f} % of the parameters"
        console.print(f"stack '{stack.name}' at {stack.path}: {stack.depth} layers ({stack.depth_key}), {share}")
        for layer, size in enumerate(stack.parameters):
            console.print(f"  layer {layer:>2}  {size:,} parameters")
        console.print(_choices(stack))


def _choices(stack: "InspectedStack"):
    from rich.table import Table

    from depthprune.plan import format_layers
    from depthprune.strategies import registry

    table = Table(title="layers that each strategy drops, by count", title_justify="left")
    table.add_column("count", justify="right")
    for name in registry.names():
        table.add_column(name)
    for count in range(1, stack.depth):
        plans = stack.choices(count)
        cells = [format_layers(plans[name].dropped) if name in plans else "–" for name in registry.names()]
        table.add_row(str(count), *cells)
    return table
