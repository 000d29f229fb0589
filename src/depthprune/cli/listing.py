"""`depthprune list`: strategies and tasks by name."""

from typing import Annotated

import typer

EXAMPLE_DEPTH, EXAMPLE_COUNT = 12, 4


def list_parts(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write the strategies as the table that stands in the README.")
    ] = False,
) -> None:
    """List the strategies and tasks."""
    from depthprune.strategies import registry as strategies
    from depthprune.tasks import registry as tasks

    if markdown:
        print(strategies_table())
        return
    print("strategies (--strategy):")
    for name, strategy in strategies.items():
        print(f"  {name:<16} {strategy.summary}")
    print("tasks (--task):")
    for name, task in tasks.items():
        print(f"  {name:<16} {task.summary}")


def strategies_table() -> str:
    """Return every strategy as a row of a Markdown table."""
    from depthprune.plan import format_layers
    from depthprune.strategies import choose, registry

    lines = [f"| strategy | what it drops | {EXAMPLE_COUNT} of {EXAMPLE_DEPTH} layers | from |", "|---|---|---|---|"]
    for name, strategy in registry.items():
        dropped = format_layers(choose(name, EXAMPLE_DEPTH, EXAMPLE_COUNT).dropped)
        lines.append(f"| `{name}` | {strategy.summary} | {dropped} | [paper]({strategy.paper}) |")
    return "\n".join(lines)
