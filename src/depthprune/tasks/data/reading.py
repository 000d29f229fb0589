"""Read tables with `datasets`; errors become one line that names the user's file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.errors import LoadError

if TYPE_CHECKING:
    from datasets import Dataset

BUILDERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def require_columns(rows: "Dataset", split: str, columns: tuple[str, ...]) -> None:
    """Check that a split has some columns.

    Raises:
        LoadError: if a column is missing; the message lists those that there are.
    """
    missing = [c for c in columns if c not in rows.column_names]
    if missing:
        raise LoadError(
            f"the split '{split}' has no column '{missing[0]}'; it has {', '.join(map(repr, rows.column_names))}"
        )


def read_dataset(path: str, config: str | None = None, *, called: str | None = None, **options: Any) -> Any:
    """Call `datasets.load_dataset`; errors become one line.

    Args:
        called: the user's name for the data, if it is not `path`.

    Raises:
        LoadError: if the data does not exist, cannot be downloaded, or cannot be read.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    what = f"'{called or path}'" + (f" ({config})" if config else "")
    try:
        with _in_silence():
            return load_dataset(path, config, **options)
    except (DatasetNotFoundError, FileNotFoundError, ConnectionError) as error:
        if Path(path).is_dir():
            raise LoadError(
                f"the folder {what} has no data that can be read ({', '.join(BUILDERS)}); put files there or give "
                "another"
            ) from None
        raise LoadError(
            f"the data {what} is neither a local folder nor on the Hub or in its cache; "
            f"give --dataset a folder, or connect to the network ({_first_line(error)})"
        ) from None
    except StopIteration:  # raised by `datasets` for an empty JSON lines file
        raise LoadError(f"the data {what} has no rows; give data with some") from None
    except (DatasetGenerationError, ValueError, KeyError, OSError) as error:
        cause = error.__cause__ or error
        if "corresponds to no data" in str(cause):
            raise LoadError(f"the data {what} has no rows; give data with some") from None
        raise LoadError(f"the data {what} cannot be read: {_first_line(cause)}") from None


def read_file(path: Path, *, more: tuple[str, ...] = ()) -> Any:
    """Read a table from a file: CSV, tab-separated, JSON lines or parquet.

    Args:
        more: suffixes of files that the caller reads itself, for the message.

    Raises:
        LoadError: if the file has another format, is empty, or cannot be read.
    """
    builder = BUILDERS.get(path.suffix)
    if builder is None:
        raise LoadError(f"'{path}' is not a supported data file ({', '.join((*more, *BUILDERS))}); convert it")
    if not path.stat().st_size:
        raise LoadError(f"'{path}' is empty; give a file with rows")
    options = {"sep": "\t"} if path.suffix == ".tsv" else {}
    return read_dataset(builder, called=str(path), data_files=str(path), **options)


@contextmanager
def _in_silence() -> Iterator[None]:
    """Suppress what `datasets` logs and pandas warns before an error that says the same."""
    log = logging.getLogger("datasets")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"pandas|datasets|pyarrow")
            yield
    finally:
        log.setLevel(level)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
