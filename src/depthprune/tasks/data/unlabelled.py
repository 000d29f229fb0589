"""Rows without labels beside a task's own, to which a teacher gives the answers: a transfer set (Hinton et al., 2015).

They are read from files, data sets and the training rows of GLUE tasks (`read_unlabelled`); whatever else makes texts,
such as an augmentation, gives them to `transfer_set`. No torch here.

No row of the evaluation is among them, and none of the training rows again. Texts are compared by their letters and
digits alone, without case: STS-B has pairs of MRPC whose spaces and quotation marks are others.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from depthprune.errors import LoadError, UserError
from depthprune.registry import unknown
from depthprune.tasks.base import KINDS, TRAIN, TaskData, TaskOptions, UnlabelledRows, load_task
from depthprune.tasks.data.reading import BUILDERS
from depthprune.tasks.data.texts import TEXT_SUFFIXES, read_splits, string_columns
from depthprune.tasks.glue import GLUE

if TYPE_CHECKING:
    from datasets import Dataset

Texts = tuple[str, ...]  # of a row: one, or a pair
EVALUATED, TRAINED, REPEATED = "rows of the evaluation", "rows of the training", "repeated rows"


def read_unlabelled(data: TaskData, sources: Sequence[str]) -> UnlabelledRows:
    """Read rows without labels for a task.

    Args:
        data: the task with its own rows.
        sources: files (text, CSV, JSON lines, parquet), folders or Hub ids of data sets, of which the split `train` is
            read; or GLUE tasks, from where the task itself is if it is one of them.

    Raises:
        LoadError: a source cannot be read, or its rows have not as many texts as the task's.
        UserError: there is no such source, the task has no labels, or no row is left.
    """
    if data.task.kind not in KINDS:
        raise UserError(
            f"the text of '{data.task.name}' is its own label, and unlabelled rows go with labelled ones; add them to "
            "--dataset"
        )
    return transfer_set(data, {source: _texts(data, source) for source in sources})


def transfer_set(data: TaskData, sources: Mapping[str, Sequence[Texts]]) -> UnlabelledRows:
    """Return rows without labels for a task: those that are neither in its own rows nor repeated.

    The two texts of a pair of the evaluation are left out in either order.

    Args:
        data: the task with its own rows.
        sources: name → rows, each with as many texts as the task's.

    Raises:
        UserError: no row is left.
    """
    from datasets import Dataset

    columns, left_out = data.task.text_columns, Counter[str]({EVALUATED: 0, TRAINED: 0, REPEATED: 0})
    evaluated, known = set[Texts](), set[Texts]()
    for split, own in data.splits.items():
        keys = map(_key, zip(*(own[column][:] for column in columns), strict=True))
        if split == TRAIN:
            known.update(keys)
        else:
            evaluated.update(tuple(sorted(key)) for key in keys)
    trained, found = set(known), dict[str, tuple[str, Dataset]]()
    # In the order of their content, whatever the order in which they were named: of two equal rows the first one stays.
    for fingerprint, (name, rows) in sorted((_fingerprint(rows), (name, rows)) for name, rows in sources.items()):
        kept = []
        for row in rows if fingerprint not in found else ():
            key = _key(row)
            if tuple(sorted(key)) in evaluated:
                left_out[EVALUATED] += 1
            elif key in known:
                left_out[TRAINED if key in trained else REPEATED] += 1
            else:
                known.add(key)
                kept.append(row)
        table = zip(*kept, strict=True) if kept else ((),) * len(columns)
        found.setdefault(fingerprint, (name, Dataset.from_dict(dict(zip(columns, map(list, table), strict=True)))))
    if not any(len(rows) for _, rows in found.values()):
        why = ", ".join(f"{reason}: {number:,}" for reason, number in left_out.items() if number) or "no text"
        raise UserError(
            f"no unlabelled row is left of {' and '.join(map(repr, sources))} ({why}); give texts that are not the "
            f"rows of '{data.task.name}'"
        )
    names, tables = zip(*found.values(), strict=True)
    return UnlabelledRows(names, tables, tuple(found), dict(left_out))


def drawn_rows(unlabelled: UnlabelledRows, most: int, seed: int) -> "Dataset":
    """Return the rows of all sources, one after the other.

    Args:
        most: rows of each source, drawn by the seed; all if 0.
    """
    import numpy as np
    from datasets import concatenate_datasets

    drawn = []
    for rows in unlabelled.rows:
        if 0 < most < len(rows):
            rows = rows.select(sorted(np.random.default_rng(seed).permutation(len(rows))[:most].tolist()))
        drawn.append(rows)
    return concatenate_datasets([rows for rows in drawn if len(rows)])


def _texts(data: TaskData, source: str) -> list[Texts]:
    """Return the rows of a source that have a text in each column."""
    path = Path(source).expanduser()
    if source in GLUE:
        beside = data.options.dataset if data.options is not None and data.task.name in GLUE else None
        other = load_task(source, TaskOptions(beside))
        rows, found = other.splits[TRAIN], other.task.text_columns
    else:
        if not path.exists() and ("/" not in source or path.suffix in BUILDERS or source.endswith(TEXT_SUFFIXES)):
            raise unknown("file, folder or GLUE task", source, sorted(GLUE))
        splits = read_splits(source)
        if TRAIN not in splits:
            raise LoadError(f"'{source}' has no split '{TRAIN}'; it has {', '.join(map(repr, splits))}")
        rows, found = splits[TRAIN], string_columns(splits[TRAIN])
    own = data.task.text_columns
    single = ("text",) if len(own) == 1 and "text" in found else found
    columns = own if set(own) <= set(rows.column_names) else single
    if len(columns) != len(own):
        needed = "one text" if len(own) == 1 else "a pair of texts"
        raise LoadError(
            f"'{source}' has {_listed(found)}, and a row of '{data.task.name}' is {needed}, {_listed(own)}; give rows "
            "with as many, or columns of these names"
        )
    texts = zip(*(rows[column][:] for column in columns), strict=True)
    return [row for row in texts if all(isinstance(text, str) and text.strip() for text in row)]


def _listed(columns: Sequence[str]) -> str:
    names = " and ".join(map(repr, columns)) or "none"
    return f"the text column{'s' if len(columns) != 1 else ''} {names}"


def _key(row: Sequence[str]) -> Texts:
    return tuple("".join(re.findall(r"\w+", text)).casefold() or text for text in row)


def _fingerprint(rows: Sequence[Texts]) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()}"
