"""Draws the figures of docs/results.md and of the README from the records and tables in this folder.

    python docs/results/figures.py          # or make figures

What comes from where: figures.yaml names the stores of records and the files of speeds; measured.csv has the numbers
of which there are no records. Each figure is written twice, for a light and for a dark page.
"""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from depthprune.plan import parse_layers
from depthprune.reporting.drawings.canvas import SCHEMES, Scheme, save_figure
from depthprune.reporting.drawings.kept import depth_panels, layers_panel, speed_panels
from depthprune.reporting.kept import Kept, in_words, kept_by
from depthprune.reporting.results import read_results

HERE = Path(__file__).parent
FINE_TUNED = "fine-tuned, 3 epochs"


def read(folder: Path = HERE) -> list[Kept]:
    """Return everything that was measured, with the names that the figures have, in the order of figures.yaml."""
    settings = yaml.safe_load((folder / "figures.yaml").read_text(encoding="utf-8"))
    speeds = {}
    for each in settings["speed"]:
        for row in json.loads((folder / each["file"]).read_text(encoding="utf-8"))["rows"]:
            if (row["what"], row["precision"], row["batch"]) == ("answer", each["precision"], each["batch"]):
                speeds[each["model"], row["depth"], row["count"]] = row["speedup"]
    found = [*_from_stores(folder, settings["stores"]), *_from_table(folder / "measured.csv")]
    orders = {name: list(settings[f"{name}s"]) for name in ("recipe", "task", "model")}
    for kept in found:
        for name, known in orders.items():
            if getattr(kept, name) not in known:
                sys.exit(f"figures.yaml has no {name} '{getattr(kept, name)}'; add it to its {name}s")
    found.sort(key=lambda kept: [known.index(getattr(kept, name)) for name, known in orders.items()])
    tasks = settings["tasks"]
    return [
        replace(kept, task=tasks[kept.task], speedup=speeds.get((kept.model, kept.depth, kept.count))) for kept in found
    ]


def _from_stores(folder: Path, stores: Sequence[dict[str, Any]]) -> Iterator[Kept]:
    for store in stores:
        runs = read_results(folder / store["folder"]).runs
        for name, words in store["recipes"].items():
            some = [run for run in runs if run.task in store["tasks"] and re.fullmatch(words, run.recipe)]
            if not any(run.dropped for run in some):
                sys.exit(f"no run of {store['folder']} has the recipe {words}")
            for task in store["tasks"]:
                own = kept_by([run for run in some if run.task == task], name)
                yield from (replace(kept, model=store["model"], task=task) for kept in own)


def rows_of(file: Path) -> list[dict[str, str]]:
    """Return the rows of a table."""
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _from_table(file: Path) -> Iterator[Kept]:
    for row in rows_of(file):
        yield Kept(
            model=row["model"],
            task=row["task"],
            recipe=row["recipe"],
            strategies=(row["strategy"],),
            depth=int(row["depth"]),
            dropped=parse_layers(row["dropped"]),
            share=float(row["score"]) / float(row["full"]),
            seeds=int(row["seeds"]),
        )


def figures(some: Sequence[Kept]) -> Iterator[tuple[str, list[Kept], Callable[..., Any]]]:
    """Yield the figures: name, what each shows, and what draws it."""
    yield "depth", list(some), depth_panels
    yield "speed", list(some), speed_panels
    for model in dict.fromkeys(kept.model for kept in some):
        own = [kept for kept in some if kept.model == model and kept.recipe == FINE_TUNED]
        if len({kept.strategies for kept in own}) > 1:
            yield f"layers-{re.sub('[^a-z0-9]+', '-', model.lower())}", own, layers_panel


def draw(target: Path, folder: Path = HERE) -> list[Path]:
    """Write all figures to a folder and return their files."""
    target.mkdir(exist_ok=True)
    written = []
    for name, some, drawing in figures(read(folder)):
        for scheme_name, scheme in SCHEMES.items():
            file = target / f"{name}-{scheme_name}.svg"
            _write(file, drawing, some, scheme)
            written.append(file)
    return written


def _write(file: Path, drawing: Callable[..., Any], some: Sequence[Kept], scheme: Scheme) -> None:
    save_figure(drawing(some, scheme=scheme), file, words=in_words(some))


if __name__ == "__main__":
    draw(HERE / "figures")
