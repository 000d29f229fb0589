"""`depthprune report`: what the records of a store say, as a page or as tables."""

from pathlib import Path
from typing import Annotated

import typer

Stores = Annotated[
    list[Path],
    typer.Argument(metavar="RUNS...", help="The folder of runs; several are read as one.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", help="The file to write: .html, .md, .csv or .tex; tables are printed if left out.",
                 show_default=False),
]  # fmt: skip
Format = Annotated[
    str | None, typer.Option("--format", help="html, markdown, csv or latex; by the file's ending if left out.")
]
Claims = Annotated[
    bool, typer.Option("--claims", help="Show all claims of the paper, also those that no runs here are about.")
]


def report(stores: Stores, output: Output = None, format_name: Format = None, claims: Claims = False) -> None:
    """Write a report of the runs in a store: one page that opens offline, tables, or one row per run (CSV)."""
    from depthprune.reporting.written import written

    text, runs = written(stores, output, format_name, claims=claims)
    print(text if output is None else f"{runs} runs: {output}\n", end="")
