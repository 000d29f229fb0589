"""A report as Markdown, CSV and LaTeX. No torch."""

import csv
import io
from collections.abc import Sequence

from depthprune.plan import format_layers
from depthprune.reporting.results import Results
from depthprune.reporting.tables.tables import Table

# What Markdown, and HTML within it, would take for its own: a name from a model's folder is text and nothing else.
MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{mark: f"\\{mark}" for mark in "\\`*[]|"}}


def markdown(tables: Sequence[Table]) -> str:
    """Write tables as Markdown, each under its title."""
    parts = []
    for table in tables:
        lines = [f"### {_marked(table.title)}", ""]
        lines += [_pipes(table.headings), "|" + "---|" * len(table.headings)]
        lines += [_pipes(row) for row in table.rows]
        parts.append("\n".join([*lines, *(["", _marked(table.note)] if table.note else [])]))
    return "\n\n".join(parts) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_marked, cells)) + " |"


def _marked(text: str) -> str:
    return "".join(MARKDOWN.get(character, character) for character in " ".join(text.split()))


COLUMNS = ("run", "model", "model_identity", "task", "data", "max_length", "recipe", "seed", "strategies", "depth",
           "count", "dropped", "metric", "score", "full_score", "retention", "examples", "parameters",
           "full_parameters", "weight_bytes", "latency_ms", "full_latency_ms", "speedup", "train_seconds",
           "hardware", "unit", "better")  # fmt: skip


def comma_separated(results: Results) -> str:
    """Write the runs as one tidy table in CSV: a row a run, a column a value, unknown values empty.

    Scores are in the unit of the metric, which for most is a fraction. Several strategies that chose the same layers
    stand in one cell, with semicolons between.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in sorted(
        results.runs, key=lambda run: (run.model_name, run.on, run.recipe, run.count, run.plan, run.seed)
    ):
        writer.writerow(
            (
                *(run.digest, run.model_name, run.model, run.task, run.data, run.max_length, run.recipe, run.seed),
                *("; ".join(run.strategies) or "full", run.depth, run.count, format_layers(run.dropped), run.primary),
                *(run.score, run.full_score, run.retention, run.measured.examples, run.parameters, run.full_parameters),
                *(run.weight_bytes, run.latency_ms, run.full_latency_ms, run.speedup, run.train_seconds, run.hardware),
                *(run.measured.unit, run.measured.better),
            )
        )
    return out.getvalue()


LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
         "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", "×": r"$\times$", "–": "--", "−": r"$-$",
         "√": r"$\surd$", "²": r"$^2$", "<": r"$<$", ">": r"$>$", "|": r"$|$", "…": r"\dots{}",
         "■": r"$\blacksquare$", "□": r"$\square$"}  # fmt: skip
LINE = 82  # characters of a table's line at \footnotesize, with some room
SEPARATOR = 0.018  # of the line: 6 pt between two columns of an article's 345 pt
NARROW = 12  # characters; a column of no more is never broken


def latex(tables: Sequence[Table]) -> str:
    """Write tables as LaTeX (booktabs, longtable, array, amssymb): long ones go on overleaf, and wide columns wrap."""
    head = "% \\usepackage{array,booktabs,longtable,amssymb}"
    return "\n\n".join([head, *map(_latex, tables)]) + "\n"


def _latex(table: Table) -> str:
    rows = [" & ".join(map(_escaped, row)) + r" \\" for row in table.rows]
    head = " & ".join(map(_escaped, table.headings)) + r" \\"
    lines = [r"\begingroup\footnotesize\setlength{\tabcolsep}{3pt}\setlength{\LTcapwidth}{\linewidth}",
             rf"\begin{{longtable}}{{{_columns(table)}}}",
             rf"\caption{{{_escaped(table.title)}}}\label{{tab:{_label(table.name)}}}\\", r"\toprule",
             head, r"\midrule", r"\endfirsthead", r"\toprule", head, r"\midrule", r"\endhead",
             r"\bottomrule", r"\endlastfoot", *rows, r"\end{longtable}"]  # fmt: skip
    return "\n".join([*lines, *([_escaped(table.note), ""] if table.note else []), r"\endgroup"])


def _columns(table: Table) -> str:
    """Return the columns: as wide as their text where all fit on a line, else the wide ones share what is left."""
    cells = [table.headings, *table.rows]
    widest = [max(len(row[i]) for row in cells) for i in range(len(table.headings))]
    if sum(widest) + 2 * len(widest) <= LINE:
        return "l" * len(widest)
    longest_words = [max(len(word) for row in cells for word in row[i].split() or [""]) for i in range(len(widest))]
    pairs = zip(widest, longest_words, strict=True)
    wanted = [max(min(width, NARROW), 1.15 * word, 3 * width**0.5) for width, word in pairs]
    share = (1 - SEPARATOR * len(widest)) / sum(wanted)
    return "".join(rf">{{\raggedright\arraybackslash}}p{{{share * width:.3f}\linewidth}}" for width in wanted)


def _label(name: str) -> str:
    return "".join(character if character.isascii() and character.isalnum() else "-" for character in name)


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))
