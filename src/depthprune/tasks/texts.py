"""Read the bare texts of a sample: a text file, a table, a data set, or standard input."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.errors import LoadError
from depthprune.tasks.reading import read_dataset, read_file

if TYPE_CHECKING:
    from depthprune.tasks.calibration import CalibrationOptions

STANDARD_INPUT = "-"
TEXT_SUFFIXES = (".txt", ".txt.xz", ".txt.gz", ".md")


def read_texts(options: "CalibrationOptions") -> list[tuple[str, ...]]:
    """Return texts, one a row or a pair."""
    if options.data == STANDARD_INPUT:
        return [(line,) for line in sys.stdin.read().splitlines()]
    path = Path(options.data).expanduser()
    if path.is_file():
        if not path.stat().st_size:
            return []
        if path.name.endswith(TEXT_SUFFIXES):
            lines = read_dataset("text", called=str(path), data_files=str(path))["train"]["text"][:]
            return [(line,) for line in lines]
        rows = read_file(path, more=TEXT_SUFFIXES)["train"]
    else:
        splits = read_dataset(str(path) if path.is_dir() else options.data, options.config)
        split = options.split or "train"
        if split not in splits:
            raise LoadError(f"'{options.data}' has no split '{split}'; it has {', '.join(map(repr, splits))}")
        rows = splits[split]
    columns = _text_columns(rows, options)
    found = zip(*(rows[column][:] for column in columns), strict=True)
    return [tuple(map(str, row)) for row in found if all(text is not None for text in row)]


def _text_columns(rows: Any, options: "CalibrationOptions") -> tuple[str, ...]:
    said = options.text_columns or ((options.text_column,) if options.text_column else ())
    if len(said) > 2:
        raise LoadError(f"an encoder reads one text or a pair, not {len(said)}; join columns first")
    if said:
        known = ", ".join(map(repr, rows.column_names))
        for column in said:
            if column not in rows.column_names:
                raise LoadError(f"'{options.data}' has no column '{column}'; it has {known}")
        return said
    texts = [name for name, kind in rows.features.items() if getattr(kind, "dtype", None) in ("string", "large_string")]
    if "text" in texts or len(texts) == 1:
        return ("text" if "text" in texts else texts[0],)
    known = ", ".join(map(repr, rows.column_names))
    raise LoadError(f"say which column of '{options.data}' has the text: --text-columns; it has {known}")
