"""A report as a file or as text, in the format that its ending says: `depthprune.report`."""

from pathlib import Path

from depthprune.arguments import checked
from depthprune.errors import UserError
from depthprune.reporting.results import Results, read_results
from depthprune.result_file import check_file, write_text

FORMATS = ("html", "markdown", "csv", "latex")
ENDINGS = {".html": "html", ".htm": "html", ".md": "markdown", ".csv": "csv", ".tex": "latex"}


@checked("report")
def report(
    store: Path | str = "runs",
    output: Path | str | None = None,
    *,
    format_name: str | None = None,
    claims: bool = False,
) -> str:
    """Write what the runs in a store say: one page that opens offline, tables, or one row a run (CSV).

    This is `depthprune.report`.

    Args:
        store: the folder of runs.
        output: the file to write; none by default.
        format_name: `html`, `markdown`, `csv` or `latex`; by the file's ending, or Markdown, by default.
        claims: show all claims of the paper, also those that no runs here are about.

    Returns:
        The text that was written.

    Raises:
        UserError: there are no runs, or the file cannot be written.
    """
    return written(Path(store), Path(output) if output is not None else None, format_name, claims=claims)[0]


def written(store: Path, output: Path | None, format_name: str | None, *, claims: bool) -> tuple[str, int]:
    """Write a report, if there is a file to write it to; returns its text, and how many runs it is about.

    Raises:
        UserError: see `report`.
    """
    chosen = format_of(output, format_name)
    if not store.is_dir():
        raise UserError(f"there is no store '{store}'; give the folder where runs were recorded")
    if output is not None:
        check_file(output)
    results = read_results(store)
    if not results.runs and not results.analyses:
        raise UserError(f"the store '{store}' has no runs that are done; run depthprune sweep or depthprune run first")
    text = _text(chosen, results, store, claims)
    if output is not None:
        write_text(output, text)
    return text, len(results.runs)


def format_of(output: Path | None, format_name: str | None = None) -> str:
    """Return the format of a report.

    Raises:
        UserError: the file ends in what no report is written as, or there is no such format.
    """
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
    if ENDINGS.get(file.suffix.lower()) != "html":
        raise UserError(f"'{file}' is no page; end it in .html, and write other formats with depthprune report")
    check_file(file)


def _text(chosen: str, results: Results, store: Path, claims: bool) -> str:
    from depthprune.reporting.tables.formats import comma_separated, latex, markdown
    from depthprune.reporting.tables.tables import all_tables

    if chosen == "html":
        from depthprune.reporting.page import page

        return page(results, store, claims=claims)
    if chosen == "csv":
        return comma_separated(results)
    return {"markdown": markdown, "latex": latex}[chosen](all_tables(results, claims=claims))
