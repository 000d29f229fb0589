"""`depthprune list`: strategies, scores, searches, healing methods, tasks and export formats by name."""

from typing import Annotated

import typer

EXAMPLE_DEPTH, EXAMPLE_COUNT = 12, 4


def list_parts(
    markdown: Annotated[bool, typer.Option("--markdown", help="Write the tables that stand in the README.")] = False,
) -> None:
    """List the strategies, scores, searches, healing methods, tasks and export formats."""
    from depthprune.exporting import registry as exporters
    from depthprune.healing.base import recipes
    from depthprune.healing.base import registry as healers
    from depthprune.scores import registry as scoring_methods
    from depthprune.specs import HealSpec
    from depthprune.specs.options import options_of
    from depthprune.strategies import registry as strategies
    from depthprune.strategies.searched import methods
    from depthprune.tasks import registry as tasks

    if markdown:
        print(strategies_table())
        return
    print("strategies by position (--strategy):")
    for name, strategy in strategies.items():
        print(f"  {name:<16} {strategy.summary}")
    print("scores (run --strategy; depthprune score --method, then drop --scores FILE):")
    for name, method in scoring_methods.items():
        print(f"  {name:<18} {method.summary}")
    print("searches (run --strategy; depthprune search --method, then drop --search FILE):")
    for name, method in methods.items():
        print(f"  {name:<16} {method.summary}")
    print("healing methods (run --heal METHOD, or METHOD(option=value)+METHOD):")
    for name, healer in healers.items():
        print(f"  {name:<16} {healer.summary}")
    print("recipes of several steps (run --heal):")
    for name, recipe in recipes.items():
        print(f"  {name:<16} {recipe.summary}")
    print("entries of a recipe (options of run, auto and sweep; keys of a sweep's file):")
    for name, item in options_of(HealSpec).items():
        print(f"  {item.flag:<22} {name:<20} {item.about.help}")
    print("tasks (--task):")
    for name, task in tasks.items():
        print(f"  {name:<16} {task.summary}")
    print("formats (depthprune export --format):")
    for name, exporter in exporters.items():
        needs = f" Needs depthprune[{exporter.extra}]." if exporter.extra is not None else ""
        print(f"  {name:<22} {exporter.summary}{needs}")


def strategies_table() -> str:
    """Return every strategy, score, search, healing method and recipe as a row of a Markdown table."""
    from depthprune.plan import format_layers
    from depthprune.strategies import choose, registry

    lines = [f"| strategy | what it drops | {EXAMPLE_COUNT} of {EXAMPLE_DEPTH} layers | from |", "|---|---|---|---|"]
    for name, strategy in registry.items():
        dropped = format_layers(choose(name, EXAMPLE_DEPTH, EXAMPLE_COUNT).dropped)
        lines.append(f"| `{name}` | {strategy.summary} | {dropped} | [paper]({strategy.paper}) |")
    return "\n".join([*lines, "", *_data_table(), "", *_healing_table()])


def _data_table() -> list[str]:
    """Return the scoring methods and searches as the lines of a Markdown table."""
    from depthprune.scores import registry as scoring_methods
    from depthprune.strategies.searched import methods

    lines = ["| score | what it is; higher means keep | its strategy drops | from |", "|---|---|---|---|"]
    what = {"lowest": "the lowest layers", "window": "the lowest window"}
    for name, scoring in scoring_methods.items():
        lines.append(f"| `{name}` | {scoring.summary} | {what[scoring.selects]} | [paper]({scoring.paper}) |")
    lines += ["", "| search | how | from |", "|---|---|---|"]
    for name, method in methods.items():
        lines.append(f"| `{name}` | {method.summary} | {f'[paper]({method.paper})' if method.paper else ''} |")
    return lines


def _healing_table() -> list[str]:
    """Return the healing methods and the named recipes as the lines of a Markdown table."""
    from dataclasses import fields

    from depthprune.healing.base import recipes, registry

    lines = ["| to heal | what it does | options | from |", "|---|---|---|---|"]
    for name, healer in registry.items():
        options = [f"`{item.name}`" for item in fields(healer.options)] if healer.options is not None else []
        paper = f"[paper]({healer.paper})" if healer.paper else ""
        lines.append(f"| `{name}` | {healer.summary} | {', '.join(options)} | {paper} |")
    for name, recipe in recipes.items():
        paper = f"[paper]({recipe.paper})" if recipe.paper else ""
        steps = "+".join(map(str, recipe.steps))
        lines.append(f"| `{name}` | {recipe.summary} | `{steps}` | {paper} |")
    return lines
