"""A person's own data: CSV, JSON lines or parquet, in a file, a folder or on the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.errors import LoadError
from depthprune.tasks.base import COUNTED, TRAIN, Task, TaskData, TaskOptions, check_texts, row_name, task
from depthprune.tasks.data.reading import read_dataset, read_file, require_columns
from depthprune.tasks.labels import Labelling, read_labels

if TYPE_CHECKING:
    from datasets import Dataset

HOLD_OUT = 0.1
HELD_OUT = "held-out"
EVAL_SPLITS = ("validation", "test")  # in the order of preference
SHOWN = 6  # classes in a message


@task("custom")
def custom(options: TaskOptions) -> TaskData:
    """Your own data: --dataset, --text-columns, --label-column; classes or numbers, by the label column.

    Whole numbers, words and booleans are classes and numbers with a fraction are a regression, unless it is said.

    Raises:
        LoadError: something is not said, or the data does not have it.
    """
    _check_said(options)
    assert options.dataset and options.label_column
    read = _read(options.dataset)
    columns = (*options.text_columns, options.label_column)
    learned_on, scored_on = choose_splits(read, options)
    splits = {split: read[split] for split in dict.fromkeys((*learned_on, scored_on))}
    for split, rows in splits.items():  # before a hold-out shuffles: a row's number is that of the file
        require_columns(rows, split, columns)
        splits[split] = rows = rows.select_columns(list(columns))
        check_texts(rows, split, options.text_columns)
        _check_labels_present(rows, split, options.label_column)
    if scored_on == TRAIN and not options.scoring_only and len(splits[TRAIN]) < 2:
        raise LoadError(f"'{options.dataset}' has {len(splits[TRAIN])} rows, too few to hold some out; give more")
    labelling = read_labels(splits, options, learned_on, scored_on)
    numbered = {split: _number(rows, options.label_column, labelling) for split, rows in splits.items()}
    if options.scoring_only:
        found, note = (
            {scored_on: numbered[scored_on]},
            f"scored on all {len(numbered[scored_on])} rows of '{scored_on}'",
        )
    elif scored_on == TRAIN:
        found, note = _hold_out(numbered[TRAIN], options.label_column, options, labelling)
        scored_on = HELD_OUT
    else:
        found, note = numbered, f"scored on the split '{scored_on}', {len(numbered[scored_on])} rows"
    entry = Task(
        name="custom",
        text_columns=options.text_columns,
        label_column=options.label_column,
        labels=labelling.names,
        metrics=_metrics(len(labelling.names)),
        eval_splits={"": scored_on},
    )
    return TaskData(entry, found, (note, labelling.note))


def _check_said(options: TaskOptions) -> None:
    for flag, value in (
        ("--dataset", options.dataset),
        ("--text-columns", options.text_columns),
        ("--label-column", options.label_column),
    ):
        if not value:
            raise LoadError(f"--task custom needs {flag}")
    if len(options.text_columns) > 2:
        raise LoadError(f"an encoder reads one text or a pair, not {len(options.text_columns)}; join columns first")
    if options.label_column in options.text_columns:
        raise LoadError(f"'{options.label_column}' cannot be both text and label; give --label-column another column")
    if len(set(options.text_columns)) < len(options.text_columns):
        raise LoadError(f"the pair of columns is '{', '.join(options.text_columns)}': give two different ones")


def _read(dataset: str) -> Any:
    path = Path(dataset).expanduser()
    return read_file(path) if path.is_file() else read_dataset(str(path) if path.is_dir() else dataset)


def choose_splits(read: Any, options: TaskOptions) -> tuple[tuple[str, ...], str]:
    """Return the splits that tell the labels, and the split to be scored on; `train` if some of it is to be held out.

    Raises:
        LoadError: if there is no such split.
    """
    known = ", ".join(map(repr, read))
    if TRAIN not in read and not options.scoring_only:
        raise LoadError(f"'{options.dataset}' has no split '{TRAIN}'; it has {known}")
    if options.eval_split is not None and options.eval_split not in read:
        raise LoadError(f"'{options.dataset}' has no split '{options.eval_split}'; it has {known}")
    if options.eval_split == TRAIN and not options.scoring_only:
        raise LoadError(
            "--eval-split train would score on the rows that are trained on; choose another or leave it out"
        )
    told = (TRAIN,) if TRAIN in read else ()
    chosen = options.eval_split or next((split for split in (*EVAL_SPLITS, TRAIN) if split in read), None)
    if chosen is None:
        if len(read) > 1:
            raise LoadError(f"say which split of '{options.dataset}' is to be scored: --eval-split; it has {known}")
        chosen = next(iter(read))
    return told, chosen


def _hold_out(
    rows: "Dataset", column: str, options: TaskOptions, labelling: Labelling
) -> tuple[dict[str, "Dataset"], str]:
    """Hold rows out by a seed of their own, which is not that of training: runs of several seeds share them.

    Every class gives its share; one with a single row gives none.
    """
    if not labelling.names:
        halves = rows.train_test_split(test_size=HOLD_OUT, seed=options.seed)
        note = f"scored on {len(halves['test'])} rows held out of '{TRAIN}' ({HOLD_OUT:.0%})"
        return {TRAIN: halves["train"], HELD_OUT: halves["test"]}, note
    import numpy as np

    labels = np.asarray(rows[column][:])
    shuffled = np.random.default_rng(options.seed).permutation(len(rows))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    several = by_class[np.bincount(labels)[labels[by_class]] > 1]
    if not len(several):
        raise LoadError(f"every class of '{options.dataset}' has a single row; give more, or --regression")
    # Evenly spaced over rows in the order of their classes: each class gives its share, rounded, and none all its rows.
    number = max(1, round(HOLD_OUT * len(rows)))
    held = set(several[((np.arange(number) + 0.5) * len(several) / number).astype(int)].tolist())
    note = f"scored on {len(held)} rows held out of '{TRAIN}' ({HOLD_OUT:.0%}, of each class)"
    left = [i for i in range(len(rows)) if i not in held]
    return {TRAIN: rows.select(left), HELD_OUT: rows.select(sorted(held))}, note


def _check_labels_present(rows: "Dataset", split: str, column: str) -> None:
    missing = next((i for i, value in enumerate(rows[column][:]) if value is None or value != value), None)
    if missing is not None:
        raise LoadError(f"{row_name(missing, split)} has no label in '{column}'; remove it or fill it in ({COUNTED})")


def _number(rows: "Dataset", column: str, labelling: Labelling) -> "Dataset":
    """Put class numbers in the place of labels."""
    from datasets import Value

    if not labelling.names:
        return rows.cast_column(column, Value("float32"))
    numbers = {label: i for i, label in enumerate(labelling.classes)}
    values = [numbers.get(label, label) for label in rows[column][:]]
    return rows.remove_columns(column).add_column(column, values)


def _metrics(num_classes: int) -> tuple[str, ...]:
    if num_classes == 0:
        return ("pearson", "spearman")
    return ("accuracy", "f1") if num_classes == 2 else ("accuracy", "f1_macro")
