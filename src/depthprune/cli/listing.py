"""`depthprune list`: strategies, scores, searches, objectives, healing methods, tasks and export formats by name."""

from typing import Annotated, Any

import typer

EXAMPLE_DEPTH, EXAMPLE_COUNT = 12, 4


def list_parts(
    markdown: Annotated[bool, typer.Option("--markdown", help="Write the tables that stand in the README.")] = False,
) -> None:
    """List the strategies, scores, searches, objectives, healing methods, tasks and export formats."""
    from depthprune.experiments.choosing.objectives import SUMMARIES
    from depthprune.exporting import registry as exporters
    from depthprune.healing.base import recipes
    from depthprune.healing.base import registry as healers
    from depthprune.scores import registry as scoring_methods
    from depthprune.scores.objectives.base import registry as objectives
    from depthprune.specs import HealSpec
    from depthprune.specs.options import options_of
    from depthprune.strategies import registry as strategies
    from depthprune.strategies.searched import methods
    from depthprune.tasks import registry as tasks
    from depthprune.tasks.metrics.base import registry as task_metrics

    if markdown:
        print(strategies_table())
        return
    sections = {
        "strategies by position (--strategy)": strategies,
        "scores (run --strategy; depthprune score --method, then drop --scores FILE)": scoring_methods,
        "searches (run --strategy; depthprune search --method, then drop --search FILE)": methods,
        "objectives (depthprune search --objective)": objectives,
        "healing methods (run --heal METHOD, or METHOD(option=value)+METHOD)": healers,
        "recipes of several steps (run --heal)": recipes,
        "tasks (--task)": tasks,
        "metrics of tasks (--metric)": task_metrics,
        "formats (depthprune export --format)": exporters,
    }
    for heading, registry in sections.items():
        lines = {name: _summary(part) for name, part in registry.items()}
        lines |= SUMMARIES if registry is objectives else {}
        print(f"{heading}:")
        for name, summary in sorted(lines.items()):
            print(f"  {name:<{max(map(len, lines))}}  {summary}")
        if registry is recipes:
            print("entries of a recipe (options of run, auto and sweep; keys of a sweep's file):")
            for name, item in options_of(HealSpec).items():
                print(f"  {item.flag:<22} {name:<20} {item.about.help}")


def _summary(part: Any) -> str:
    """Return a part's description, with the extra that it needs."""
    extra = getattr(part, "extra", None)
    return part.summary + (f" Needs depthprune[{extra}]." if extra is not None else "")


def strategies_table() -> str:
    """Return every strategy, score, search, healing method and recipe as a row of a Markdown table."""
    from depthprune.plan import format_layers
    from depthprune.strategies import choices, registry

    lines = [f"| strategy | what it drops | {EXAMPLE_COUNT} of {EXAMPLE_DEPTH} layers | from |", "|---|---|---|---|"]
    plans = choices(EXAMPLE_DEPTH, EXAMPLE_COUNT)
    for name, strategy in registry.items():
        dropped = format_layers(plans[name].dropped) if name in plans else "–"
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
