"""The report as one HTML file that opens offline (Jinja2, pictures as SVG inside). No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from depthprune.errors import LoadError
from depthprune.optional import require
from depthprune.reporting.analyses import FOLDER, KINDS, curves, curves_words
from depthprune.reporting.answer import answers, sentences
from depthprune.reporting.cells import groups, over_seeds
from depthprune.reporting.drawings import charts
from depthprune.reporting.drawings.canvas import as_svg
from depthprune.reporting.drawings.kept import depth_panels, layers_panel, speed_panels
from depthprune.reporting.kept import Kept, all_kept, in_words, short_names
from depthprune.reporting.results import Results
from depthprune.reporting.tables.tables import Table, all_tables
from depthprune.scores import Scores, read_scores
from depthprune.scores.base import token_words
from depthprune.tasks.metrics.base import LOWER

SHORT = 6  # answers that are written as text
FEW = 10  # runs; with so few, a chart of a single count is better than none


@dataclass(frozen=True)
class Picture:
    """A drawing with its texts.

    Args:
        svg: the drawing.
        alt: description for screen readers.
        caption: below it.
    """

    svg: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        anchor, heading: its name in links and on the page.
        tables, figures: what it shows.
        notes: below it.
        lead: paragraphs at the beginning, each a headline and its text.
    """

    anchor: str
    heading: str
    tables: tuple[Table, ...] = ()
    figures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    lead: tuple[tuple[str, ...], ...] = ()


def page(results: Results, *stores: Path, claims: bool = False, chosen: str | None = None) -> str:
    """Return the report as HTML.

    Args:
        claims: include the paper's claims that no runs are about.
        chosen: the digest of the run that is the answer; by default the smallest that loses little.
    """
    jinja2 = require("jinja2", extra="report", purpose="writing a report")
    from importlib.metadata import version

    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    template = environment.from_string(
        files("depthprune.reporting").joinpath("templates/report.html").read_text(encoding="utf-8")
    )
    tasks, models = results.values("task"), results.values("model_name")
    lead = (
        f"{len(results.runs)} runs of {', '.join(models)} on {', '.join(tasks)}: layers dropped, the rest fine-tuned, "
        "scored beside the full model. K is how many layers went; layers count from 0, the one nearest the input."
        if results.runs
        else f"{len(results.analyses)} analyses of layers; no runs."
    )
    return template.render(
        title="What is left when layers are dropped",
        lead=lead,
        sections=sections(results, *stores, claims=claims, chosen=chosen),
        store=", ".join(store.name for store in stores),
        version=version("depthprune"),
    )


def sections(results: Results, *stores: Path, claims: bool = False, chosen: str | None = None) -> list[Section]:
    """Return the sections of the page that have content, the answer first."""
    tables = {table.name: table for table in all_tables(results, claims=claims, chosen=chosen)}
    found = [
        _answer(results, tables, chosen),
        Section(
            "scores",
            "Score against depth",
            _starting(tables, "scores-"),
            (*_side_by_side(results), *_depth_charts(results)),
        ),
        Section("pareto", "What it costs and what it saves", _some(tables, "cost"), tuple(_pareto(results))),
        Section("within", "How many layers can be dropped", _some(tables, "within", "robustness")),
        Section("beside", "Other ways to make a model small", _some(tables, "recipes", "baselines", "before-healing")),
        Section(
            "layers",
            "Which layers stay",
            _some(tables, "layers"),
            (*_layers_kept(results), *_layer_scores(stores)),
        ),
        Section(
            "analyses",
            "What each layer encodes, and what fine-tuning changed",
            _some(tables, "probes", "similarities"),
            tuple(_analyses(results)),
        ),
        Section("paper", "Beside the paper's numbers", _starting(tables, "paper-")),
        Section("claims", "The paper's claims", _some(tables, "claims")),
        Section("runs", "Every run, and how to repeat it", _some(tables, "runs"), notes=_notes(results)),
    ]
    return [section for section in found if section.tables or section.figures or section.lead]


def _answer(results: Results, tables: dict[str, Table], chosen: str | None) -> Section:
    """Return the answer: as text for a few models and tasks, as a table for many."""
    lead = tuple(sentences(each) for each in answers(results, chosen=chosen))
    if len(lead) > SHORT:
        return Section("answer", "The answer", _some(tables, "answer"))
    return Section("answer", "The answer", lead=lead, notes=tuple(table.note for table in _some(tables, "answer")))


def _some(tables: dict[str, Table], *names: str) -> tuple[Table, ...]:
    return tuple(tables[name] for name in names if name in tables)


def _starting(tables: dict[str, Table], start: str) -> tuple[Table, ...]:
    return tuple(table for name, table in tables.items() if name.startswith(start))


def _side_by_side(results: Results) -> list[Picture]:
    """Draw what models and recipes keep beside one another, where there are several of either."""
    some = all_kept(results)
    if len({(kept.model, kept.recipe) for kept in some}) < 2:
        return []
    names = short_names(list(dict.fromkeys(kept.recipe for kept in some)))
    drawn = [replace(kept, recipe=names[kept.recipe]) for kept in some]
    key = "".join(f" {short}: {recipe}." for recipe, short in names.items() if short != recipe)
    caption = (
        "Share of the full model's score, means over seeds. A line is of one strategy: the one that has the most "
        f"points of the task, or else of the line. Only marks are measured.{key}"
    )
    found = [Picture(as_svg(depth_panels(drawn)), f"Score against layers dropped. {in_words(some)}", caption)]
    if known := [kept for kept in some if kept.speedup is not None]:
        words = f"Score against speed. {in_words(known)}"
        found.append(Picture(as_svg(speed_panels(drawn)), words, "The same against the speed-up of one example."))
    return found


def _layers_kept(results: Results) -> list[Picture]:
    """Draw the layers that strategies keep with their scores, for each model and recipe that has several."""
    by_recipe: dict[tuple[str, str], list[Kept]] = {}
    for kept in all_kept(results):
        by_recipe.setdefault((kept.model, kept.recipe), []).append(kept)
    return [
        Picture(
            as_svg(layers_panel(some)),
            f"Layers kept, and the share of the score that they keep. {in_words(some)}",
            f"Layers kept and the share of the full model's score, the best first: {model}, {recipe}",
        )
        for (model, recipe), some in by_recipe.items()
        if len({kept.dropped for kept in some}) > 1
    ]


def _depth_charts(results: Results) -> list[Picture]:
    """Draw one line per strategy for every group; groups with a single count are left out."""
    pictures = []
    for group in groups(results):
        if len({run.count for run in group.runs if run.dropped}) > 1 or len(results.runs) < FEW:
            words = charts.depth_words(group.runs)
            drawn = charts.depth_chart(group.runs, group.full)
            caption = f"{group.title}; {group.runs[0].recipe}"
            pictures.append(Picture(drawn, f"Score against layers dropped, {group.title}. {words}", caption))
    return pictures


def _pareto(results: Results) -> list[Picture]:
    runs = over_seeds([run for run in results.runs if run.retention is not None])
    if not any(run.dropped for run in runs):
        return []
    pictures = []
    for kind, (_, _, cost) in charts.COSTS.items():
        known = [run for run in runs if kind != "speed" or run.speedup is not None]
        if not any(run.dropped for run in known):
            continue
        front = ", ".join(charts.point_name(run) for run in charts.pareto_front(known, cost))
        caption = (
            f"Share of the full model's score against {kind}, means over seeds. What no other beats in both is joined "
            "up and labelled with the layers that went."
        )
        if any(run.measured.better == LOWER for run in known):
            caption += " Where lower is better the share is the full model's score over the pruned one's."
        pictures.append(Picture(charts.pareto_chart(known, kind), f"Retention against {kind}. Best: {front}", caption))
    return pictures


def _layer_scores(stores: Sequence[Path]) -> list[Picture]:
    pictures = []
    for file in (file for store in stores for file in sorted((store / "scores").glob("*.json"))):
        try:
            scores: Scores = read_scores(file)
        except LoadError:
            continue  # other files are left alone
        words = ", ".join(f"layer {i} {value:.3f}" for i, value in enumerate(scores.of().layers))
        caption = f"{scores.method} of {scores.model['name']} on {scores.calibration['data']}, "
        caption += f"{token_words(scores.token)}; higher means keep"
        pictures.append(Picture(charts.scores_chart(scores), f"{caption}: {words}", caption))
    return pictures


def _analyses(results: Results) -> list[Picture]:
    pictures = []
    captions = {"probe": "Score of a linear probe on every layer", "similarity": "Cosine before and after fine-tuning"}
    for kind in KINDS:
        found = curves(results.analyses, kind)
        if found:
            scale, axis = (100, "score × 100") if kind == "probe" else (1, "mean cosine")
            words = f"{captions[kind]}, after the embeddings and after each layer. {curves_words(found, kind)}"
            pictures.append(Picture(charts.curves_chart(found, axis, scale=scale), words, captions[kind]))
    return pictures


def _notes(results: Results) -> tuple[str, ...]:
    notes: Sequence[str] = [f"Skipped: {note}" for note in results.notes]
    files = [name for name in results.foreign if name.startswith(f"{FOLDER}/")]
    folders = [name for name in results.foreign if name not in files]
    for names, one, many in (
        (folders, "folder was ignored, since it is not a run", "folders were ignored, since they are not runs"),
        (files, "file was ignored, since it is not an analysis", "files were ignored, since they are not analyses"),
    ):
        left = f"{len(names)} {many if len(names) > 1 else one}"
        notes = [*notes, f"{left}: {', '.join(names[:10])}"] if names else notes
    return tuple(notes)
