"""Analyses of a store as values and as tables: probes of every layer, and what fine-tuning changed. No torch.

Values are numbered by layers: 0 after the embeddings, n after n layers. The paper's own curves are drawn beside those
of the same models.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthprune.reporting.paper.numbers import named_in_paper
from depthprune.reporting.tables.table import Table
from depthprune.scores.base import token_words

FOLDER = "analyses"  # of a store
KINDS = ("probe", "similarity")

# Read off charts of arXiv:2004.03844 v1, ±0.01, after the embeddings and after 1 to 12 layers. What we have of the
# paper does not say on which task.
PAPER_PROBE = {
    "bert-base-cased": (0.50, 0.63, 0.65, 0.72, 0.76, 0.79, 0.82, 0.84, 0.85, 0.86, 0.87, 0.885, 0.885),
    "xlnet-base-cased": (0.50, 0.64, 0.645, 0.757, 0.779, 0.819, 0.843, 0.875, 0.884, 0.882, 0.883, 0.884, 0.886),
}
PAPER_COSINE = {
    "bert-base-cased": (1.0, 0.92, 0.93, 0.87, 0.88, 0.86, 0.76, 0.69, 0.66, 0.53, 0.44, 0.40, 0.27),
    "xlnet-base-cased": (1.0, 0.89, 0.76, 0.58, 0.57, 0.49, 0.65, 0.66, 0.84, 0.75, 0.80, 0.87, 0.49),
}
PAPER = {"probe": PAPER_PROBE, "similarity": PAPER_COSINE}
PAPER_MARK = "read off the paper's chart"
NONE = "–"


@dataclass(frozen=True)
class Analysis:
    """A recorded analysis.

    Args:
        kind: `probe` or `similarity`.
        model_name, model_type, depth: of the model; for a similarity, of the fine-tuned one.
        before_name: of the pre-trained model, for a similarity.
        task, metric, token: of the values.
        values: fractions, after the embeddings and after each layer.
        examples: number of rows behind the values.
        train_examples: number of rows that probes were fitted on.
        seed: of the choice of these rows.
        covariance: of the values over the rows that they are means over; None in older records.
    """

    kind: str
    model_name: str
    model_type: str
    depth: int
    before_name: str | None
    task: str
    metric: str
    token: str
    values: tuple[float, ...]
    examples: int = 0
    train_examples: int = 0
    seed: int = 42
    covariance: tuple[tuple[float, ...], ...] | None = None

    @property
    def in_paper(self) -> str | None:
        """Name of the same model in the paper, if the paper has a curve of it."""
        name = named_in_paper(self.before_name or self.model_name)
        return name if name in PAPER[self.kind] and len(self.values) == len(PAPER[self.kind][name]) else None


@dataclass(frozen=True)
class Curve:
    """Values of a table's row, or of a line in a chart.

    Args:
        name: of the models.
        about: further cells: task, metric and so on.
        values: after the embeddings and after each layer.
        paper: whether they are the paper's.
    """

    name: str
    about: tuple[str, ...]
    values: tuple[float, ...]
    paper: bool = False


def read_analyses(root: Path) -> tuple[tuple[Analysis, ...], tuple[str, ...]]:
    """Read the analyses of a store.

    Returns:
        The analyses, and the names of files that are not analyses, which are left alone.
    """
    found, foreign = [], []
    for file in sorted((root / FOLDER).iterdir()) if (root / FOLDER).is_dir() else ():
        if file.suffix == ".partial":
            continue  # being written
        analysis = _readable(file)
        if analysis is None:
            foreign.append(f"{FOLDER}/{file.name}")
        else:
            found.append(analysis)
    found.sort(key=lambda each: (each.kind, each.before_name or each.model_name, each.task, each.token))
    return tuple(found), tuple(foreign)


def _readable(file: Path) -> Analysis | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        before = content["before"]
        analysis = Analysis(
            kind=content["kind"],
            **_model(content["model"]),
            before_name=None if before is None else str(before["name"]),
            task=str(content["task"]),
            metric=str(content["metric"]),
            token=str(content["token"]),
            values=tuple(map(float, content["values"])),
            examples=int(content["examples"]["evaluation"]),
            train_examples=int(content["examples"]["train"]),
            seed=int(content["seed"]),
            covariance=_covariance(content),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = analysis.kind in KINDS and (analysis.kind == "similarity") == (before is not None)
    whole = whole and len(analysis.values) == analysis.depth + 1 > 1 and all(map(math.isfinite, analysis.values))
    if analysis.covariance is not None:
        rows = [row for row in analysis.covariance if len(row) == analysis.depth + 1 and all(map(math.isfinite, row))]
        whole = whole and len(rows) == len(analysis.covariance) == analysis.depth + 1
    return analysis if whole else None


def _covariance(content: dict[str, Any]) -> tuple[tuple[float, ...], ...] | None:
    """Return the covariance of the values of a record; None where it is older than that."""
    if "covariance" not in content:
        return None
    return tuple(tuple(map(float, row)) for row in content["covariance"])


def _model(content: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_name": str(content["name"]),
        "model_type": str(content["model_type"]),
        "depth": int(content["depth"]),
    }


def curves(analyses: Sequence[Analysis], kind: str) -> list[Curve]:
    """Return the analyses of a kind, the paper's curve after the last of each of its models."""
    some = [each for each in analyses if each.kind == kind]
    last = {each.in_paper: i for i, each in enumerate(some)}
    found = []
    for i, each in enumerate(some):
        rows = f"{each.train_examples} / {each.examples}" if kind == "probe" else str(each.examples)
        name = each.model_name if each.before_name is None else f"{each.before_name} against {each.model_name}"
        found.append(Curve(name, (each.task, each.metric, each.token, rows), each.values))
        if each.in_paper is not None and last[each.in_paper] == i:
            about = (NONE, "accuracy" if kind == "probe" else "cosine", NONE, NONE)
            found.append(Curve(f"{each.in_paper}, {PAPER_MARK}", about, PAPER[kind][each.in_paper], paper=True))
    return found


def analysis_tables(analyses: Sequence[Analysis]) -> list[Table]:
    """Return a table of the probes and one of the similarities, if there are any."""
    where = "Column 0: after the embeddings; column n: after n layers."
    chart = f" What is {PAPER_MARK} is exact to ±0.01, and on an unknown task."
    titles = {
        "probe": ("probes", "A linear probe on every layer: score × 100", "training / scored rows"),
        "similarity": ("similarities", "Cosine of each layer before and after fine-tuning", "rows"),
    }
    tables = []
    for kind, (name, title, rows) in titles.items():
        found = curves(analyses, kind)
        if not found:
            continue
        most = max(len(curve.values) for curve in found)
        cells = tuple((curve.name, *curve.about, *_cells(curve, kind, most)) for curve in found)
        headings = ("model", "task", "metric", "token", rows, *map(str, range(most)))
        note = where + (chart if any(curve.paper for curve in found) else "")
        tables.append(Table(name, title, headings, cells, note))
    return tables


def _cells(curve: Curve, kind: str, most: int) -> tuple[str, ...]:
    written = [written_value(value, kind) for value in curve.values]
    return (*written, *[NONE] * (most - len(written)))


def written_value(value: float, kind: str) -> str:
    """Format a value of an analysis.

    >>> written_value(0.8123, "probe"), written_value(0.8749, "similarity")
    ('81.2', '0.87')
    """
    return f"{100 * value:.1f}" if kind == "probe" else f"{value:.2f}"


def curves_words(found: Sequence[Curve], kind: str) -> str:
    """Describe a chart of curves, value by value."""
    return "; ".join(
        f"{label(curve)}: {', '.join(written_value(value, kind) for value in curve.values)}" for curve in found
    )


def label(curve: Curve) -> str:
    """Return the label of a curve in a chart."""
    return curve.name if curve.paper else f"{curve.name}, {curve.about[0]}, {token_words(curve.about[2])}"
