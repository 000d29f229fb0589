"""A report as a file or as text, in the format of the file's suffix: `depthprune.report`."""

from collections.abc import Sequence
from pathlib import Path

from depthprune.arguments import checked
from depthprune.errors import UserError
from depthprune.reporting.results import Results, read_results
from depthprune.result_file import check_file, write_text

FORMATS = ("html", "markdown", "csv", "latex")
ENDINGS = {".html": "html", ".htm": "html", ".md": "markdown", ".csv": "csv", ".tex": "latex"}


@checked("report")
def report(
    store: Path | str | Sequence[Path | str] = "runs",
    output: Path | str | None = None,
    *,
    format_name: str | None = None,
    claims: bool = False,
) -> str:
    """Write a report of the runs in a store: one page that opens offline, tables, or one row per run (CSV).

    This is `depthprune.report`.

    Args:
        store: the folder of runs, or several that are read as one.
        output: the file to write; none by default.
        format_name: `html`, `markdown`, `csv` or `latex`; by default from the file's suffix, or Markdown.
        claims: show all claims of the paper, including those that no runs are about.

    Returns:
        The text that was written.

    Raises:
        UserError: if there are no runs, or the file cannot be written.
    """
    stores = [store] if isinstance(store, str | Path) else list(store)
    return written(
        [Path(each) for each in stores], Path(output) if output is not None else None, format_name, claims=claims
    )[0]


def written(stores: Sequence[Path], output: Path | None, format_name: str | None, *, claims: bool) -> tuple[str, int]:
    """Return the text of a report and the number of its runs, and write it if there is a file.

    Raises:
        UserError: see `report`.
    """
    chosen = format_of(output, format_name)
    if not stores:
        raise UserError("no store is given; give the folder where runs were recorded")
    for store in stores:
        if not store.is_dir():
            raise UserError(f"there is no store '{store}'; give the folder where runs were recorded")
    if output is not None:
        check_file(output)
    results = read_results(*stores)
    if not results.runs and not results.analyses:
        named = f"the store '{stores[0]}' has" if len(stores) == 1 else "the stores have"
        raise UserError(f"{named} no finished runs; run depthprune sweep or depthprune run first")
    text = _text(chosen, results, stores, claims)
    if output is not None:
        write_text(output, text)
    return text, len(results.runs)


def format_of(output: Path | None, format_name: str | None = None) -> str:
    """Return the format of a report.

    Raises:
        UserError: if there is no such format, or the file's suffix is not that of a report.
    """
    if format_name is not None and format_name not in FORMATS:
        raise UserError(f"there is no format '{format_name}'; it is one of {', '.join(FORMATS)}")
    if format_name is None and output is not None and output.suffix.lower() not in ENDINGS:
        raise UserError(f"'{output}' is not a report format; end it in {', '.join(ENDINGS)}, or give --format")
    chosen = format_name or (ENDINGS[output.suffix.lower()] if output is not None else "markdown")
    if chosen == "html" and output is None:
        raise UserError("say where to write the page: --output report.html")
    if output is not None and output.suffix.lower() == ".pdf":
        raise UserError(f"'{output}' would be no PDF; write .html and print it, or .tex, from which LaTeX makes one")
    return chosen


def check_page(file: Path) -> None:
    """Check that a page can be written to a file, before anything is computed.

    Raises:
        UserError: if the name does not end in .html, or the file cannot be written.
    """
    if ENDINGS.get(file.suffix.lower()) != "html":
        raise UserError(f"'{file}' is not a page; end it in .html, and write other formats with depthprune report")
    check_file(file)


def _text(chosen: str, results: Results, stores: Sequence[Path], claims: bool) -> str:
    from depthprune.reporting.tables.formats import comma_separated, latex, markdown
    from depthprune.reporting.tables.tables import all_tables

    if chosen == "html":
        from depthprune.reporting.page import page

        return page(results, *stores, claims=claims)
    if chosen == "csv":
        return comma_separated(results)
    return {"markdown": markdown, "latex": latex}[chosen](all_tables(results, claims=claims))
