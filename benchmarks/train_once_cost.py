"""What one training for all depths costs beside plain fine-tuning of the same model, step for step.

Every way trains a fresh model for the same number of steps on the same rows; the ways take turns, and the medians of
the rounds are compared. A step is the CPU time from the end of the first step to that of the last, so that other work
on the machine matters less; the layers that are tried once before the first step do not count.

    OMP_NUM_THREADS=1 python benchmarks/train_once_cost.py MODEL --dataset DIR --steps 8 --rounds 3

`at most` counts the layers that run in a step, forwards and backwards alike, embeddings and head aside.
"""

import argparse
import statistics
import sys
import time

from transformers import set_seed

from depthprune.cli.options import quiet_libraries
from depthprune.experiments.specification import stack_depth
from depthprune.healing.base import Cut, TrainingData
from depthprune.healing.recipe import parse_recipe, resolve
from depthprune.loading import load_classifier, load_tokenizer
from depthprune.plan import LayerPlan
from depthprune.sources import locate
from depthprune.specs import HealSpec
from depthprune.strategies import choose, removal_order
from depthprune.tasks import TaskOptions, load_task
from depthprune.tasks.data.encoding import encode


def ways(depth: int, smallest: int) -> dict[str, tuple[str, float]]:
    """Return the ways to train: name → recipe, and the layers that run in a step over those of the whole model."""
    found = {"finetune": ("finetune", 1.0)}
    for strategy in ("top", "even-alternate", "bottom"):
        order = removal_order(choose(strategy, depth, depth - smallest), strategy)
        # From the first layer that a sub-network leaves out on, its layers run once more; all of them up to the depth.
        more = [
            sum(layer not in order[:count] for layer in range(min(order[:count]), depth))
            for count in range(1, depth - smallest + 1)
        ]
        recipe = f"adaptive-layers(depths={smallest}-{depth - 1}, order={','.join(map(str, order))})"
        found[f"adaptive-layers, {strategy}"] = (recipe, 1 + min(sum(more) / depth, 1))
    found["layerdrop(rate=0.2)"] = ("layerdrop(rate=0.2)", 0.8)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--dataset")
    parser.add_argument("--task", default="mrpc")
    parser.add_argument("--depth", type=int, help="The smallest depth that is trained; half of the layers if left out.")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args()
    quiet_libraries()
    source = locate(arguments.model)
    data, tokenizer = load_task(arguments.task, TaskOptions(arguments.dataset)), load_tokenizer(source)
    rows = encode(data, tokenizer, 128)["train"].shuffle(seed=0).select(range(arguments.steps * arguments.batch_size))
    depth = stack_depth(source)
    chosen = ways(depth, arguments.depth or depth // 2)
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for number in range(arguments.rounds):
        for name, (text, _) in chosen.items():
            set_seed(42)
            model, _ = load_classifier(source, data.task.num_outputs)
            heal = HealSpec(1, arguments.batch_size, precision=arguments.precision, steps=parse_recipe(text))
            (step,) = [step for step in resolve(heal) if step.healer.name != "drop"]
            ends: list[float] = []
            step.healer.function(
                *(model, TrainingData(rows, tokenizer), step.options),
                **{"schedule": step.schedule, "seed": 42, "cut": Cut(LayerPlan(depth, ())), "teacher": None},
                on_step=lambda done, total, ends=ends: ends.append(time.process_time()),
            )
            seconds[name].append((ends[-1] - ends[0]) / (len(ends) - 1))
            print(f"round {number + 1}: {seconds[name][-1]:.2f} s a step  {name}", file=sys.stderr)
    base = statistics.median(seconds["finetune"])
    print("| way | CPU seconds a step (median, min–max) | against fine-tuning | at most |\n|---|---|---|---|")
    for name, found in seconds.items():
        middle = statistics.median(found)
        spread = f"{middle:.2f} ({min(found):.2f}–{max(found):.2f})"
        print(f"| {name} | {spread} | {middle / base:.2f}× | {chosen[name][1]:.2f}× |")


if __name__ == "__main__":
    main()
