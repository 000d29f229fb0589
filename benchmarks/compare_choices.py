"""Every way to choose layers beside the true optimum: the plan at each K, and the cost it leaves before healing.

An exhaustive search gives the cost of every plan, so any method's plan can be looked up and its distance from the best
be told. A cell is the cost (lower is better), the layers that go, and in brackets the share of the way from the best
plan to the worst.

    python benchmarks/compare_choices.py MODEL --data TEXT --objective loss
"""

import argparse
import tempfile
from pathlib import Path

from depthprune.errors import UserError
from depthprune.experiments.choosing.engine import Engine
from depthprune.experiments.choosing.score import score_layers
from depthprune.experiments.choosing.search import SearchOptions, search_layers
from depthprune.plan import LayerPlan, format_layers
from depthprune.scores import registry as metrics
from depthprune.strategies import choose, registry
from depthprune.strategies.evaluator import read_trace
from depthprune.strategies.scored import plan_scored
from depthprune.strategies.searched import methods
from depthprune.tasks.data.calibration import CalibrationOptions


def plans(arguments: argparse.Namespace, sample: CalibrationOptions, counts: tuple[int, ...], depth: int):
    """Yield (method, count → plan); a method that the model cannot have is left out with the reason."""
    engine = Engine(batch_size=arguments.batch_size, device="cpu")
    for name in registry.names():
        found = {}
        for count in counts:
            try:
                found[count] = choose(name, depth, count)
            except UserError:
                continue
        yield name, found
    for name in metrics.names():
        objective = arguments.objective if name == "loss" else None
        try:
            scores = score_layers(arguments.model, name, sample, objective=objective, engine=engine)
        except UserError as error:
            print(f"{name}: {error}\n")
            continue
        yield name, {count: plan_scored(scores, count=count) for count in counts}
    for name in methods.names():
        if name != "exhaustive":
            options = SearchOptions(counts, arguments.objective)
            result = search_layers(arguments.model, name, sample, options, engine=engine)
            yield name, {count: result.plan(count) for count in counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--dataset")
    parser.add_argument("--objective")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--count", type=int, nargs="+", default=[1, 2, 3, 4])
    arguments = parser.parse_args()
    sample = CalibrationOptions(arguments.data, arguments.dataset, samples=arguments.samples)
    counts = tuple(arguments.count)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "t.jsonl"
        best = search_layers(
            arguments.model,
            "exhaustive",
            sample,
            SearchOptions(counts, arguments.objective),
            engine=Engine(batch_size=arguments.batch_size, device="cpu"),
            trace=trace,
        )
        values = {tuple(entry["dropped"]): entry["value"] for entry in read_trace(trace)}
    unit = f" ({best.objective['unit']})" if best.objective["unit"] else ""
    sampled = best.calibration
    print(f"{best.objective['name']}{unit}, {sampled['samples']} {sampled['kind']}, {sampled['tokens']} tokens")
    print(f"full model {best.full:.4f}; {best.trials} plans tried in {best.seconds:.0f} s\n")
    print("| method | " + " | ".join(f"K = {count}" for count in counts) + " |\n|---|" + "---|" * len(counts))

    def cell(plan: LayerPlan | None) -> str:
        if plan is None:
            return "–"
        of_size = [value for dropped, value in values.items() if len(dropped) == plan.count]
        value, span = values[plan.dropped], max(of_size) - min(of_size)
        away = (value - min(of_size)) / span if span else 0.0
        return f"{value:.3f}, {format_layers(plan.dropped)} ({'best' if value == min(of_size) else f'{away:.0%}'})"

    rows = [("exhaustive", {count: best.plan(count) for count in counts})]
    rows += list(plans(arguments, sample, counts, best.depth))
    for name, found in rows:
        print(f"| {name} | " + " | ".join(cell(found.get(count)) for count in counts) + " |", flush=True)


if __name__ == "__main__":
    main()
