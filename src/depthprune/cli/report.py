"""`depthprune report`: what the records of a store say, as a page or as tables."""

from pathlib import Path
from typing import Annotated

import typer

FORMATS = ("html", "markdown", "csv", "latex")
ENDINGS = {".html": "html", ".htm": "html", ".md": "markdown", ".csv": "csv", ".tex": "latex"}
Store = Annotated[Path, typer.Argument(metavar="RUNS", help="The folder of runs.", show_default=False)]
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


def report(store: Store, output: Output = None, format_name: Format = None, claims: Claims = False) -> None:
    """Write what the runs in a store say: one page that opens offline, tables, or one row a run (CSV)."""
    from depthprune.errors import UserError
    from depthprune.result_file import check_file, write_text

    chosen = format_of(output, format_name)
    if not store.is_dir():
        raise UserError(f"there is no store '{store}'; give the folder where runs were recorded")
    if output is not None:
        check_file(output)
    from depthprune.report.results import read_results

    results = read_results(store)
    if not results.runs and not results.analyses:
        raise UserError(f"the store '{store}' has no runs that are done; run depthprune sweep or depthprune run first")
    text = _text(chosen, results, store, claims)
    if output is None:
        print(text, end="")
        return
    write_text(output, text)
    print(f"{len(results.runs)} runs: {output}")


def format_of(output: Path | None, format_name: str | None = None) -> str:
    """Return the format of a report.

    Raises:
        UserError: the file ends in what no report is written as, or there is no such format.
    """
    from depthprune.errors import UserError

    if format_name is not None and format_name not in FORMATS:
        raise UserError(f"there is no format '{format_name}'; it is one of {', '.join(FORMATS)}")
    if format_name is None and output is not None and output.suffix.lower() not in ENDINGS:
        raise UserError(f"'{output}' is no report that this writes; end it in {', '.join(ENDINGS)}, or give --format")
    chosen = format_name or (ENDINGS[output.suffix.lower()] if output is not None else "markdown")
    if chosen == "html" and output is None:
        raise UserError("say where to write the page: --output report.html")
    if output is not None and output.suffix.lower() == ".pdf":
        raise UserError(f"'{output}' would be no PDF; write .html and print it, or .tex, from which LaTeX makes one")
    return chosen


def check_page(file: Path) -> None:
    """Refuse a file that no page can be written to, before anything is computed.

    Raises:
        UserError: it does not end in .html, or cannot be written.
    """
    from depthprune.errors import UserError
    from depthprune.result_file import check_file

    if ENDINGS.get(file.suffix.lower()) != "html":
        raise UserError(f"'{file}' is no page; end it in .html, and write other formats with depthprune report")
    check_file(file)


def _text(chosen: str, results, store: Path, claims: bool) -> str:
    from depthprune.report.formats import comma_separated, latex, markdown
    from depthprune.report.tables import all_tables

    if chosen == "html":
        from depthprune.report.page import page

        return page(results, store, claims=claims)
    if chosen == "csv":
        return comma_separated(results)
    return {"markdown": markdown, "latex": latex}[chosen](all_tables(results, claims=claims))
