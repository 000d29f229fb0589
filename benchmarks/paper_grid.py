"""The paper's grid on one model: a learning rate for each task first, found on a part of train, then which layers go.

Two sweeps; what lies between them is here. The first trains the full model at several rates on four fifths of each
task's training rows and scores it on the last fifth, so that no evaluation row has a say in the rate:

    python benchmarks/paper_grid.py rates MODEL --dataset GLUE --output FOLDER --rows sst2=12000
    depthprune sweep FOLDER/rates.yaml --store STORE

The second is the grid at the best rate of each task, in several files: what comes first is worth most.

    python benchmarks/paper_grid.py grid MODEL --output FOLDER --store STORE
    depthprune sweep FOLDER/grid-*.yaml --store STORE

And what other recipes make of the same cuts, at equal steps and at twice as many:

    python benchmarks/paper_grid.py recipes MODEL --output FOLDER --store STORE --strategies top --counts 6 4
    depthprune sweep FOLDER/recipes-*.yaml --store STORE

GLUE is a folder in the layout of `nyu-mll/glue`. `--rows` takes that many training rows of a task, drawn by a seed;
such a score is not comparable with a published one.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from depthprune.experiments.store.records import measured, records
from depthprune.experiments.store.store import Store

TASKS = ("sst2", "cola", "stsb", "mrpc", "rte")  # the longest runs first, so that no worker waits for one in the end
RATES = (1e-4, 5e-5, 2e-4, 2e-5)
STRATEGIES = ("top", "contribution", "symmetric", "even-alternate", "odd-alternate", "bottom")
THRESHOLDS = (0.95, 0.925, 0.90)
RECIPES = ("distill", "patient-kd", "hidden-kd")
HELD_OUT = 0.2
ROWS_SEED = 42  # of what is held out, and of a part of train
FORMAT = "{split}-00000-of-00001.parquet"


def rates(given: argparse.Namespace) -> None:
    """Write the rows to look for a rate on, those of the grid, and the first sweep."""
    parts = rows_asked(given.rows, given.tasks)
    for task in given.tasks:
        train, validation = _read(given.dataset, task, "train"), _read(given.dataset, task, "validation")
        if task in parts:
            if parts[task] > len(train):
                sys.exit(
                    f"--rows {task}={parts[task]}: its train split has {len(train)} rows; ask for as many or fewer"
                )
            train = train.shuffle(seed=ROWS_SEED).select(range(parts[task]))
        halves = train.train_test_split(test_size=HELD_OUT, seed=ROWS_SEED)
        _write(given.output / "glue" / task, {"train": train, "validation": validation})
        _write(given.output / "tuning" / task, {"train": halves["train"], "validation": halves["test"]})
    for name in ("glue", "tuning"):
        (given.output / name / "README.md").write_text(_card(given.tasks))
    recipes = [{"name": f"{rate:g}", "learning_rate": rate, "num_epochs": given.epochs} for rate in given.rates]
    sweep = {"baselines": _named(given.model), "tasks": given.tasks, "dataset": str(given.output / "tuning")}
    _save(given.output / "rates.yaml", sweep | {"seeds": given.seeds[:1], "heal": recipes})


def rows_asked(texts: list[str], tasks: list[str]) -> dict[str, int]:
    """Return task → number of training rows, of texts such as `sst2=12000`; ends the program if one is wrong.

    >>> rows_asked(["sst2=12000"], ["sst2", "mrpc"])
    {'sst2': 12000}
    """
    found = {}
    for text in texts:
        task, _, number = text.partition("=")
        if task not in tasks:
            sys.exit(f"--rows {text}: '{task}' is none of the tasks here ({', '.join(tasks)}); write TASK=NUMBER")
        if not number.isdecimal() or int(number) < 2:
            sys.exit(f"--rows {text}: '{number}' is no number of rows; write TASK=NUMBER, with 2 or more")
        found[task] = int(number)
    return found


def _read(dataset: Path, task: str, split: str) -> Any:
    from datasets import Dataset

    return Dataset.from_parquet([str(file) for file in sorted((dataset / task).glob(f"{split}-*"))])


def _write(folder: Path, splits: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        rows.to_parquet(folder / FORMAT.format(split=split))


def _card(tasks: list[str]) -> str:
    """Return the file that tells `datasets` which rows are whose."""
    files = lambda task: [{"split": split, "path": f"{task}/{split}-*"} for split in ("train", "validation")]  # noqa: E731
    configs = [{"config_name": task, "data_files": files(task)} for task in tasks]
    return f"---\n{yaml.safe_dump({'configs': configs})}---\n"


def grid(given: argparse.Namespace) -> None:
    """Write the sweeps of the grid, at the rates that scored best."""
    best = best_rates(Store(given.store), str(given.output / "tuning"))
    chosen = {task: given.rate or best.get(task) for task in given.tasks}
    for task, rate in chosen.items():
        print(f"{task}: {f'learning rate {rate:g}' if rate else 'no run tells the rate, left out'}")
    tasks = [task for task in given.tasks if chosen[task]]
    tasks = list(reversed(tasks))  # the short ones first: each is a comparison that can be read
    parts: list[tuple[str, dict[str, Any]]] = []
    seed, others = given.seeds[:1], given.seeds[1:]
    every = given.strategies
    thresholds = [{"name": "contribution", "threshold": value} for value in THRESHOLDS]
    small, large = given.counts[:1], given.counts[1:]
    parts += [(task, {"strategies": every, "counts": large, "seeds": seed}) for task in tasks]
    parts += [(task, {"strategies": [*every, *thresholds], "counts": small, "seeds": seed}) for task in tasks]
    parts += [(task, {"strategies": every[:1], "counts": given.counts, "seeds": others}) for task in tasks if others]
    parts += [(task, {"strategies": every[1:], "counts": given.counts, "seeds": others}) for task in tasks if others]
    for old in given.output.glob("grid-*.yaml"):
        old.unlink()
    for number, (task, part) in enumerate(parts, 1):
        heal = {"learning_rate": chosen[task], "num_epochs": given.epochs}
        sweep = {"models": _named(given.model), "tasks": [task], "dataset": str(given.output / "glue")}
        _save(given.output / f"grid-{number:02}-{task}.yaml", sweep | part | {"heal": heal})


def recipes(given: argparse.Namespace) -> None:
    """Write the sweeps of recipes, a seed whole before the next."""
    best = best_rates(Store(given.store), str(given.output / "tuning"))
    tasks = [task for task in reversed(given.tasks) if given.rate or task in best]
    for old in given.output.glob("recipes-*.yaml"):
        old.unlink()
    parts = [(seed, count, task) for seed in given.seeds for count in given.counts for task in tasks]
    for number, (seed, count, task) in enumerate(parts, 1):
        plain = {"learning_rate": given.rate or best[task], "num_epochs": given.epochs}
        # As a step, so that it is compared with the same full model as the others.
        longer = f"finetune(num_epochs={2 * given.epochs:g})"
        heals = [{"name": "finetune"} | plain, {"name": "finetune, twice as long"} | plain | {"steps": longer}]
        heals += [{"name": recipe} | plain | {"steps": recipe} for recipe in given.recipes]
        sweep = {"models": _named(given.model), "tasks": [task], "dataset": str(given.output / "glue")}
        sweep |= {"strategies": given.strategies, "counts": [count], "seeds": [seed], "heal": heals}
        _save(given.output / f"recipes-{number:02}-{task}.yaml", sweep)


def best_rates(store: Store, dataset: str) -> dict[str, float]:
    """Return the learning rate of each task at which the full model scores best on the rows held out."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _, record in records(store):
        if record is not None and record["environment"]["data"].get("dataset") == dataset:
            spec = record["spec"]
            found.setdefault(spec["evaluation"]["task"], []).append(
                (measured(record).merit, spec["heal"]["learning_rate"])
            )
    for task, seen in sorted(found.items()):
        print(task, ", ".join(f"{rate:g}: {100 * score:.2f}" for score, rate in sorted(seen, reverse=True)))
    return {task: max(seen)[1] for task, seen in found.items()}


def _named(model: str) -> dict[str, str]:
    return {Path(model).name: model}


def _save(file: Path, sweep: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump(sweep, sort_keys=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("rates", "grid", "recipes"))
    parser.add_argument("model")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--rows", nargs="*", default=[], metavar="TASK=NUMBER")
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--rate", type=float, help="of all tasks, in place of the one that was found")
    parser.add_argument("--counts", nargs="+", type=int, default=[2, 4, 6])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43, 44])
    parser.add_argument("--epochs", type=float, default=3)
    given = parser.parse_args()
    if given.step == "rates" and given.dataset is None:
        sys.exit("--dataset is missing: a folder in the layout of nyu-mll/glue")
    {"rates": rates, "grid": grid, "recipes": recipes}[given.step](given)


if __name__ == "__main__":
    main()
