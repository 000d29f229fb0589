"""What a greedy search costs: run from the beginning each time, with states used again, and with racing.

Plans, layers that ran and seconds are compared in one run. The model should have twelve layers or more; `--repeat N`
makes one of a shallower by taking every layer N times, since real weights make layers differ as random ones do not.

    python benchmarks/search_speed.py MODEL --data TEXT --repeat 2 --count 4
"""

import argparse
import copy
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from depthprune.experiments.choosing.engine import Engine
from depthprune.experiments.choosing.objectives import choose_objective, opened_objective
from depthprune.experiments.choosing.score import prepare
from depthprune.sources import locate
from depthprune.strategies.evaluator import Evaluator
from depthprune.strategies.searched import Space, methods
from depthprune.surgery.modules import find_stacks
from depthprune.tasks.data.calibration import CalibrationOptions

WAYS = {"from the beginning": (False, False), "states used again": (True, False), "and racing": (True, True)}


def deepened(model: str, repeat: int, folder: str) -> str:
    """Write a model in which every layer stands `repeat` times."""
    full = AutoModel.from_pretrained(model)
    stack = next(iter(find_stacks(full).values()))
    layers = full.get_submodule(stack.path)
    path, _, name = stack.path.rpartition(".")
    twins = [copy.deepcopy(layer) for layer in layers for _ in range(repeat)]
    setattr(full.get_submodule(path), name, torch.nn.ModuleList(twins))
    setattr(full.config, stack.depth_key, stack.depth * repeat)
    full.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--objective")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = deepened(arguments.model, arguments.repeat, folder) if arguments.repeat > 1 else arguments.model
        engine = Engine(batch_size=arguments.batch_size, device="cpu", cache_dir=Path(folder) / "states")
        prepared = prepare(locate(model), CalibrationOptions(arguments.data, samples=arguments.samples), engine, None)
        objective = choose_objective(prepared, arguments.objective)
        depth = prepared.stack.depth
        print(f"{depth} layers, {arguments.count} go, {arguments.samples} samples, objective {objective.name}")
        print("| way | plan | value | layers run | against | seconds | against |\n|---|---|---|---|---|---|---|")
        base = None
        for name, (reuse, race) in WAYS.items():
            start = time.perf_counter()
            with opened_objective(prepared, objective, reuse=reuse) as opened:
                evaluator = Evaluator(opened, race=race)
                plan = methods.get("greedy").function(evaluator, Space(depth, (arguments.count,)))[arguments.count]
                seconds, runs = time.perf_counter() - start, opened.layer_runs
                base = base or (runs, seconds)
                print(
                    f"| {name} | {list(plan.dropped)} | {evaluator.value(plan):.5f} | {runs:,} | {runs / base[0]:.3f}× "
                    f"| {seconds:.1f} | {seconds / base[1]:.3f}× |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
