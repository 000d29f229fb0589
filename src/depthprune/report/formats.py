"""Tables as Markdown, CSV and LaTeX. No torch."""

import csv
import io
from collections.abc import Sequence

from depthprune.report.tables import Table


def markdown(tables: Sequence[Table]) -> str:
    """Write tables as Markdown, each under its title."""
    parts = []
    for table in tables:
        lines = [f"### {table.title}", ""]
        lines += [_pipes(table.headings), "|" + "---|" * len(table.headings)]
        lines += [_pipes(row) for row in table.rows]
        parts.append("\n".join([*lines, *(["", table.note] if table.note else [])]))
    return "\n\n".join(parts) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def comma_separated(tables: Sequence[Table]) -> str:
    """Write tables as CSV, one after the other: the table's name is the first column."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for table in tables:
        writer.writerow(("table", *table.headings))
        writer.writerows((table.name, *row) for row in table.rows)
    return out.getvalue()


LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
         "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", "×": r"$\times$", "–": "--",
         "■": r"$\blacksquare$", "□": r"$\square$"}  # fmt: skip


def latex(tables: Sequence[Table]) -> str:
    """Write tables as LaTeX (booktabs, amssymb)."""
    return "\n\n".join(_latex(table) for table in tables) + "\n"


def _latex(table: Table) -> str:
    rows = [" & ".join(map(_escaped, row)) + r" \\" for row in table.rows]
    head = " & ".join(map(_escaped, table.headings)) + r" \\"
    lines = [r"\begin{table}", rf"\caption{{{_escaped(table.title)}}}", rf"\label{{tab:{table.name}}}"]
    lines += [rf"\begin{{tabular}}{{{'l' * len(table.headings)}}}", r"\toprule", head, r"\midrule", *rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
