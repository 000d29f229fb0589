"""The options of a calibration sample, and its texts from a file, a table, a data set or a pipe."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthprune.errors import LoadError
from depthprune.tasks.data.reading import read_dataset, read_file

STANDARD_INPUT = "-"
TEXT_SUFFIXES = (".txt", ".txt.xz", ".txt.gz", ".md")


@dataclass(frozen=True)
class CalibrationOptions:
    """The options of a calibration sample.

    Args:
        data: a task's name, a file (text, CSV, JSON lines, parquet), a folder or Hub id of `datasets`, or `-` for
            standard input.
        dataset: where the data of a task is.
        config: name of a data set's configuration.
        split: of a task or a data set; `train` by default, so that layers are not chosen on the rows of the evaluation.
        text_column: of a table; `text`, or the only column with text, by default.
        samples: examples or blocks; 256 by default, or all rows where an evaluation split of a task is named.
        length: tokens of a block, or to which an example is cut; 128 by default, or what the model takes.
        seed: of the sample.
        text_columns: instead of `text_column`: one column, or two for pairs.
        label_column: of custom data, whose rows are then those of the task `custom`.
        kind: `classification` or `regression`, of these labels.
        task_metric: the primary metric, if it is not the task's default.
    """

    data: str
    dataset: str | None = None
    config: str | None = None
    split: str | None = None
    text_column: str | None = None
    samples: int | None = None
    length: int | None = None
    seed: int = 42
    text_columns: tuple[str, ...] = ()
    label_column: str | None = None
    kind: str | None = None
    task_metric: str | None = None


def read_texts(options: CalibrationOptions) -> list[tuple[str, ...]]:
    """Return texts: one per row, or pairs."""
    if options.data == STANDARD_INPUT:
        return [(line,) for line in sys.stdin.read().splitlines()]
    path = Path(options.data).expanduser()
    if path.is_file() and not path.stat().st_size:
        return []
    splits = read_splits(options.data, options.config)
    split = "train" if path.is_file() else options.split or "train"
    if split not in splits:
        raise LoadError(f"'{options.data}' has no split '{split}'; it has {', '.join(map(repr, splits))}")
    rows = splits[split]
    said = options.text_columns or ((options.text_column,) if options.text_column else ())
    columns = text_columns(rows, options.data, said)
    found = zip(*(rows[column][:] for column in columns), strict=True)
    return [tuple(map(str, row)) for row in found if all(text is not None for text in row)]


def read_splits(data: str, config: str | None = None) -> Any:
    """Read a text file, a table, or a folder or data set of either: split → rows; a file is the split `train`.

    Raises:
        LoadError: it cannot be read.
    """
    path = Path(data).expanduser()
    if not path.is_file():
        return read_dataset(str(path) if path.is_dir() else data, config)
    if not path.stat().st_size:
        raise LoadError(f"'{path}' is empty; give a file with text")
    if path.name.endswith(TEXT_SUFFIXES):
        return read_dataset("text", called=str(path), data_files=str(path))
    return read_file(path, more=TEXT_SUFFIXES)


def text_columns(rows: Any, data: str, said: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the columns that hold the text: those that are named, else `text` or the only one with text.

    Raises:
        LoadError: there are none such, or it has to be said which.
    """
    if len(said) > 2:
        raise LoadError(f"an encoder reads one text or a pair, not {len(said)}; join columns first")
    if said:
        known = ", ".join(map(repr, rows.column_names))
        for column in said:
            if column not in rows.column_names:
                raise LoadError(f"'{data}' has no column '{column}'; it has {known}")
        return said
    texts = string_columns(rows)
    if "text" in texts or len(texts) == 1:
        return ("text" if "text" in texts else texts[0],)
    known = ", ".join(map(repr, rows.column_names))
    raise LoadError(f"name the column of '{data}' has the text: --text-columns; it has {known}")


def string_columns(rows: Any) -> tuple[str, ...]:
    """Return the columns that hold text."""
    kinds = {name: getattr(kind, "dtype", None) for name, kind in rows.features.items()}
    return tuple(name for name, kind in kinds.items() if kind in ("string", "large_string"))
