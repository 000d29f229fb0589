"""How fast depthprune fine-tunes, against the plain loop that pads every row to 128 and trains in float32.

Each variant adds one thing to the one before: padding to the longest row of the batch, batches of like length, and the
precision that the probe chooses. Every variant trains a fresh model for the same number of steps on the same task;
the variants take turns, so that a machine that slows down slows all of them, and the medians of the rounds are
compared. Rows are tokenised once before the clock starts, in the plain loop too.

    python benchmarks/fine_tuning_speed.py MODEL --dataset DIR --steps 20 --rounds 3

`--scores` trains on all rows with the plain loop and with depthprune, `--seeds` each, and prints both scores as JSON
lines instead.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
from transformers import set_seed

from depthprune.cli.options import quiet_libraries
from depthprune.evaluation.base import measure
from depthprune.healing.base import Schedule, TrainingData
from depthprune.healing.precision import faster_precision
from depthprune.healing.training import train
from depthprune.loading import load_classifier, load_tokenizer
from depthprune.sources import locate
from depthprune.tasks import TaskOptions, load_task
from depthprune.tasks.data.encoding import encode

sys.path.insert(0, str(Path(__file__).parent))
import plain_loop

VARIANTS = {
    "padding to the longest of the batch": {"similar_lengths": False, "precision": "float32"},
    "+ batches of like length": {"similar_lengths": True, "precision": "float32"},
    "+ bfloat16 autocast": {"similar_lengths": True, "precision": "bfloat16"},
}


def plain_speed(arguments, data, tokenizer, source) -> float:
    """Return the plain loop's examples a second over `--steps` steps."""
    settings = argparse.Namespace(**{**vars(arguments), "pad": "max", "epochs": 1, "max_length": 128})
    rows = plain_loop.encode(tokenizer, shuffled(data, arguments)[:], settings)
    model, _ = load_classifier(source, data.task.num_outputs)
    return plain_loop.train(model, rows, tokenizer, settings)


def our_speed(arguments, data, tokenizer, source, variant) -> float:
    """Return our examples a second over the same number of steps."""
    rows = shuffled(data, arguments, encode(data, tokenizer, 128)["train"])
    model, _ = load_classifier(source, data.task.num_outputs)
    schedule = Schedule(1, arguments.batch_size, arguments.learning_rate, **variant)
    return train(model, TrainingData(rows, tokenizer), schedule, seed=arguments.seed).examples_per_second


def shuffled(data, arguments, rows=None):
    """The same sample of rows for every variant."""
    rows = data.splits["train"] if rows is None else rows
    return rows.shuffle(seed=0).select(range(min(len(rows), arguments.steps * arguments.batch_size)))


def speeds(arguments, data, tokenizer, source) -> None:
    """Print the table of speeds."""
    rounds = {"plain loop: every row padded to 128, float32": [], **{name: [] for name in VARIANTS}}
    for number in range(arguments.rounds):
        for name, found in rounds.items():
            set_seed(arguments.seed)
            if name in VARIANTS:
                found.append(our_speed(arguments, data, tokenizer, source, VARIANTS[name]))
            else:
                found.append(plain_speed(arguments, data, tokenizer, source))
            print(f"round {number + 1}: {found[-1]:6.1f} examples/s  {name}", file=sys.stderr)
    base = statistics.median(rounds[next(iter(rounds))])
    print("| variant | examples/s (median, min–max) | against the plain loop |\n|---|---|---|")
    for name, found in rounds.items():
        middle = statistics.median(found)
        print(f"| {name} | {middle:.1f} ({min(found):.1f}–{max(found):.1f}) | {middle / base:.2f}× |")
    model, _ = load_classifier(source, data.task.num_outputs)
    first = encode(data, tokenizer, 128)["train"].remove_columns("length").select(range(arguments.batch_size))
    batch = plain_loop_batch(tokenizer, first)
    print(f"\nthe probe chooses {faster_precision(model, batch)}; {torch.get_num_threads()} threads")


def plain_loop_batch(tokenizer, rows):
    from transformers import DataCollatorWithPadding

    return DataCollatorWithPadding(tokenizer)(rows.to_list())


def scores(arguments, data, tokenizer, source) -> None:
    """Print whole-run scores of both over three seeds, as JSON lines."""
    encoded = encode(data, tokenizer, 128)
    for seed in map(int, arguments.seeds.split(",")):
        settings = argparse.Namespace(
            **{**vars(arguments), "pad": "batch", "max_length": 128, "seed": seed, "task": "mrpc"}
        )
        set_seed(seed)
        model, _ = load_classifier(source, data.task.num_outputs)
        rows = plain_loop.encode(tokenizer, data.splits["train"][:], settings)
        plain_loop.train(model, rows, tokenizer, settings)
        held_out = plain_loop.encode(tokenizer, data.splits["validation"][:], settings)
        print(json.dumps({"by": "plain loop", "seed": seed, **plain_loop.score(model, held_out, tokenizer, settings)}))
        for similar in (False, True):
            set_seed(seed)
            model, _ = load_classifier(source, data.task.num_outputs)
            schedule = Schedule(arguments.epochs, learning_rate=arguments.learning_rate, similar_lengths=similar)
            train(model, TrainingData(encoded["train"], tokenizer), schedule, seed=seed)
            found = measure(model, tokenizer, data.task, encoded)
            by = "depthprune, batches of like length" if similar else "depthprune"
            print(json.dumps({"by": by, "seed": seed, **{name: m.value for name, m in found.items()}}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3, help="of --scores")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scores", action="store_true")
    parser.add_argument("--seeds", default="0,1,2", help="of --scores")
    arguments = parser.parse_args()
    quiet_libraries()
    source = locate(arguments.model)
    tokenizer = load_tokenizer(source)
    data = load_task("mrpc", TaskOptions(dataset=arguments.dataset))
    (scores if arguments.scores else speeds)(arguments, data, tokenizer, source)


if __name__ == "__main__":
    main()
