"""`depthprune report`: what the records of a store say, as a page or as tables."""

from pathlib import Path
from typing import Annotated

import typer

FORMATS = ("html", "markdown", "csv", "latex")
Store = Annotated[Path, typer.Argument(metavar="RUNS", help="The folder of runs.", show_default=False)]
Output = Annotated[
    Path | None, typer.Option("--output", help="The file to write; tables are printed if left out.", show_default=False)
]
Format = Annotated[
    str | None, typer.Option("--format", help="html, markdown, csv or latex; by the file's ending if left out.")
]
ENDINGS = {".html": "html", ".md": "markdown", ".csv": "csv", ".tex": "latex"}


def report(store: Store, output: Output = None, format_name: Format = None) -> None:
    """Write what the runs in a store say: one page that opens offline, or tables."""
    from depthprune.errors import UserError
    from depthprune.result_file import check_file, write_text

    chosen = format_name or (ENDINGS.get(output.suffix, "html") if output is not None else "markdown")
    if chosen not in FORMATS:
        raise UserError(f"there is no format '{chosen}'; it is one of {', '.join(FORMATS)}")
    if chosen == "html" and output is None:
        raise UserError("say where to write the page: --output report.html")
    if not store.is_dir():
        raise UserError(f"there is no store '{store}'; give the folder where runs were recorded")
    if output is not None:
        check_file(output)
    from depthprune.report.results import read_results

    results = read_results(store)
    if not results.runs and not results.analyses:
        raise UserError(f"the store '{store}' has no runs that are done; run depthprune sweep or depthprune run first")
    text = _text(chosen, results, store)
    if output is None:
        print(text, end="")
        return
    write_text(output, text)
    print(f"{len(results.runs)} runs: {output}")


def _text(chosen: str, results, store: Path) -> str:
    from depthprune.report.formats import comma_separated, latex, markdown
    from depthprune.report.tables import all_tables

    if chosen == "html":
        from depthprune.report.page import page

        return page(results, store)
    return {"markdown": markdown, "csv": comma_separated, "latex": latex}[chosen](all_tables(results))
