"""What distillation costs beside plain fine-tuning of the same student, and what frozen layers computed once save.

    python benchmarks/healing_cost.py distill MODEL --dataset DIR --task mrpc --rows 512 --epochs 4 --rounds 3
    python benchmarks/healing_cost.py frozen MODEL --dataset DIR --task mrpc --rows 512 --epochs 4 --rounds 3

`distill` trains MODEL without every second layer, `frozen` the whole of it, by several recipes on the same rows, in
turns, so that a machine that slows down slows all of them. Seconds are those of the whole training, the teacher's
answers and the states of frozen layers included; the shortest of the rounds counts. The teacher is MODEL with a random
head, which costs what a trained one does. `--profile RECIPE` prints where the time of one goes.
"""

import argparse
import cProfile
import pstats
import statistics

from transformers import set_seed

from depthprune.cli.options import quiet_libraries
from depthprune.healing import frozen
from depthprune.healing.base import Cut, TrainingData
from depthprune.healing.recipe import heal, read_recipe, resolve
from depthprune.loading import load_classifier, load_tokenizer
from depthprune.plan import LayerPlan
from depthprune.sources import locate
from depthprune.tasks import TaskOptions, load_task
from depthprune.tasks.data.encoding import encode

PLAIN = "plain fine-tuning"
EACH_EPOCH = "lower half frozen, computed in each epoch"
ONCE = "lower half frozen, computed once"


def recipes(group: str, depth: int) -> dict[str, str]:
    """Return name → recipe."""
    if group == "distill":
        return {
            PLAIN: "finetune",
            "logits": "distill",
            "logits, sentence token's states": "distill(beta=100, normalise=true, states=inner)",
            "logits, all tokens' states": "distill(beta=1, tokens=all)",
        }
    lower = f"layers=0-{depth // 2 - 1}, embeddings=true"
    return {
        PLAIN: "finetune",
        "lower half frozen, with dropout": f"freeze({lower})+finetune",
        EACH_EPOCH: f"freeze({lower}, dropout=false)+finetune",
        ONCE: f"freeze({lower}, dropout=false)+finetune",
    }


class Teacher:
    """The full model, with a random head."""

    pooling = ("mean",)

    def __init__(self, source, outputs: int):
        self.identity, self._model = source.identity, load_classifier(source, outputs)[0].eval().requires_grad_(False)

    def model(self):
        return self._model


def seconds(source, data, tokenizer, rows, teacher, depth: int, name: str, recipe: str, arguments) -> float:
    """Return how long a training takes."""
    set_seed(arguments.seed)
    model = load_classifier(source, data.task.num_outputs)[0]
    entries = {"num_epochs": arguments.epochs, "batch_size": arguments.batch_size, "precision": arguments.precision}
    entries |= {"learning_rate": 5e-5, "similar_lengths": arguments.similar_lengths, "steps": recipe}
    limit, frozen.LARGEST = frozen.LARGEST, -1 if name == EACH_EPOCH else frozen.LARGEST
    plan = LayerPlan(depth, tuple(range(1, depth, 2)) if arguments.group == "distill" else ())
    try:
        healed = heal(
            model,
            TrainingData(rows, tokenizer),
            resolve(read_recipe(entries)),
            cut=Cut(plan),
            seed=arguments.seed,
            teacher=teacher,
        )
    finally:
        frozen.LARGEST = limit
    for note in healed.notes if arguments.notes else ():
        print(f"  {name}: {note}")
    return sum(training.seconds for training in healed.trainings)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("group", choices=("distill", "frozen"))
    parser.add_argument("model")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--task", default="mrpc")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--similar-lengths", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--notes", action="store_true", help="print the notes of the first trainings")
    parser.add_argument("--profile", metavar="RECIPE", help="print where its time goes, instead")
    arguments = parser.parse_args()
    quiet_libraries()
    source = locate(arguments.model)
    tokenizer, data = load_tokenizer(source), load_task(arguments.task, TaskOptions(dataset=arguments.dataset))
    rows = encode(data, tokenizer, 128)["train"].shuffle(seed=arguments.seed).select(range(arguments.rows))
    teacher, depth = Teacher(source, data.task.num_outputs), source.config["num_hidden_layers"]
    chosen = recipes(arguments.group, depth)
    how = (source, data, tokenizer, rows, teacher, depth)
    if arguments.profile:
        with cProfile.Profile() as profile:
            seconds(*how, arguments.profile, chosen[arguments.profile], arguments)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        return
    took: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(arguments.rounds):
        for name, recipe in chosen.items():
            took[name].append(seconds(*how, name, recipe, arguments))
            arguments.notes = arguments.notes and len(took[name]) > 1
    steps = arguments.epochs * -(-len(rows) // arguments.batch_size)
    base = min(took[PLAIN])
    print("| recipe | seconds (shortest; median) | steps/s | × plain |\n|---|---|---|---|")
    for name, found in took.items():
        least = min(found)
        middle = statistics.median(found)
        print(f"| {name} | {least:.1f}; {middle:.1f} | {steps / least:.2f} | {least / base:.2f} |")
    if ONCE in took:
        print(
            f"\ncomputed once: {min(took[EACH_EPOCH]) / min(took[ONCE]):.2f} × as fast as in each epoch, and ", end=""
        )
        print(f"{min(took['lower half frozen, with dropout']) / min(took[ONCE]):.2f} × as fast as with dropout")


if __name__ == "__main__":
    main()
