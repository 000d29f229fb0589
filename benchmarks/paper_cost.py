"""How many GPU hours the paper's own grid takes (`make reproduce`), from a measured rate. No model is loaded.

    python benchmarks/paper_cost.py                      # examples/paper/*.yaml at the rate below
    python benchmarks/paper_cost.py --rate 5000          # at a rate measured elsewhere
    python benchmarks/paper_cost.py --lengths TOKENIZER --dataset GLUE      # how the lengths below were measured

The unit is the full model's step: forward, backward and optimiser on 32 rows through 12 layers of base size. A run
without some of its layers costs its share of the layers, since the embeddings and the head take hardly any time, and a
step costs in proportion to the tokens of its batch, padding included.

The rate: 22 runs of MPNet (12 layers, hidden 768) on MRPC and STS-B, 3 epochs, batch 32, in bfloat16, five at a time on
an NVIDIA H200 that had other runs on it, took 193 s with the start and the scoring of each: the full model, and five
strategies at K = 4 and 6. It is a lower bound: steps were bound by launches and not by arithmetic, and the card was
shared. With 14 runs at a time e5-small-12, a fourth of that in its layers, took about 250 steps a second, twice this
rate: `--rate 5400`.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from depthprune.errors import PlanError
from depthprune.experiments.sweeps.grid import StrategyEntry, SweepSpec, read_sweep
from depthprune.strategies import choose

ROOT = Path(__file__).parents[1]


class Rows(NamedTuple):
    """Of a task of GLUE: training rows and evaluation rows, as published, and tokens.

    Args:
        tokens: of the longest of 32 rows drawn at random, cut to 128: the mean over 256 batches, or all there are.
    """

    training: int
    evaluation: int
    tokens: float


GLUE = {
    "mrpc": Rows(3_668, 408, 94.3),
    "rte": Rows(2_490, 277, 127.5),
    "stsb": Rows(5_749, 1_500, 78.6),
    "sst2": Rows(67_349, 872, 47.2),
    "qnli": Rows(104_743, 5_463, 107.3),
    "qqp": Rows(363_846, 40_430, 74.4),
    "mnli": Rows(392_702, 9_815, 99.2),
}
COLUMNS = {
    "mrpc": ("sentence1", "sentence2"),
    "rte": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "sst2": ("sentence",),
    "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
}
BATCH, EPOCHS, BASE_LAYERS = 32, 3, 12
THRESHOLDS = {0.95: 2, 0.925: 4, 0.90: 6}  # layers that the thresholds drop: about as many as the paper's on BERT
FORWARD = 1 / 3  # of a training step: scoring has no backward pass
MEASURED_SECONDS = 193
MEASURED_LAYERS = 1 + 5 * 8 / 12 + 5 * 6 / 12  # full models' worth of the runs on each of the two tasks
# Against BERT at equal tokens: DistilBERT's layers are BERT's. XLNet's attention has a second product for the relative
# positions over twice as many; half as much again is assumed, and not measured.
SLOWER = {"xlnet-base-cased": 1.5}


def full_run(task: str) -> float:
    """Return the cost of training and scoring the full model on a task: its steps times the tokens of a row."""
    rows = GLUE[task]
    training = EPOCHS * math.ceil(rows.training / BATCH)
    return rows.tokens * (training + FORWARD * math.ceil(rows.evaluation / BATCH))


def measured_rate() -> float:
    """Return what the measured runs got done a second, in the unit of `full_run`."""
    return MEASURED_LAYERS * (full_run("mrpc") + full_run("stsb")) / MEASURED_SECONDS


def dropped(entry: StrategyEntry, depth: int, counts: Sequence[int]) -> list[int]:
    """Return how many layers each run of a strategy drops, those left out that it does not support."""
    if entry.threshold is not None:
        return [THRESHOLDS[entry.threshold]]
    if entry.name == "contribution":
        return list(counts)
    found = []
    for count in counts:
        try:
            found.append(choose(entry.name, depth, count).count)
        except PlanError:
            continue
    return found


def layers(sweep: SweepSpec, depth: int) -> tuple[int, float]:
    """Return the number of runs for a model and task, the full one's included, and of full models they are worth."""
    gone = [0] + [count for entry in sweep.strategies for count in dropped(entry, depth, sweep.counts_for(depth))]
    return len(gone), sum(depth - count for count in gone) / depth


def table(sweeps: Sequence[tuple[SweepSpec, int]], rate: float) -> str:
    """Return runs and hours by model and task, as Markdown.

    Args:
        sweeps: each with the depth of its models.
        rate: of the machine, as `measured_rate`.
    """
    tasks = list(dict.fromkeys(task for sweep, _ in sweeps for task in sweep.tasks))
    lines = [f"| model | runs | {' | '.join(tasks)} | hours |", "|" + "---|" * (len(tasks) + 3)]
    all_runs, sums = 0, dict.fromkeys(tasks, 0.0)
    for sweep, depth in sweeps:
        runs, worth = layers(sweep, depth)
        for model in sweep.models:
            name = sweep.names.get(model, model)
            factor = SLOWER.get(name, 1.0) * worth * depth / BASE_LAYERS * len(sweep.seeds) / rate / 3600
            hours = {task: factor * full_run(task) for task in sweep.tasks}
            for task, value in hours.items():
                sums[task] += value
            all_runs += runs * len(sweep.tasks) * len(sweep.seeds)
            cells = " | ".join(f"{hours.get(task, 0):.2f}" for task in tasks)
            lines.append(f"| {name} | {runs * len(sweep.tasks)} | {cells} | {sum(hours.values()):.1f} |")
    cells = " | ".join(f"{value:.2f}" for value in sums.values())
    return "\n".join([*lines, f"| all | {all_runs} | {cells} | {sum(sums.values()):.1f} |"])


def lengths(tokenizer: str, dataset: Path) -> None:
    """Print the tokens of each task's batches, for `GLUE` above."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    read = AutoTokenizer.from_pretrained(tokenizer)
    for task, columns in COLUMNS.items():
        rows = Dataset.from_parquet([str(file) for file in sorted((dataset / task).glob("train-*"))])
        rows = rows.shuffle(seed=42).select(range(min(256 * BATCH, len(rows))))
        ids = read(*[list(rows[column]) for column in columns], truncation=True, max_length=128)["input_ids"]
        longest = [max(map(len, ids[i : i + BATCH])) for i in range(0, len(ids), BATCH)]
        print(f"{task}: {statistics.fmean(longest):.1f} tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rate", type=float, default=measured_rate(), help="steps of 32 rows × tokens of a row a second"
    )
    parser.add_argument("--lengths", metavar="TOKENIZER")
    parser.add_argument("--dataset", type=Path, help="a folder in the layout of nyu-mll/glue")
    given = parser.parse_args()
    if given.lengths:
        lengths(given.lengths, given.dataset)
        return
    sweeps = [(read_sweep(ROOT / f"examples/paper/{depth}-layers.yaml"), depth) for depth in (12, 6)]
    print(f"{given.rate:,.0f} a second\n\n{table(sweeps, given.rate)}")


if __name__ == "__main__":
    main()
