"""A person's own data: CSV, JSON lines or parquet, in a file, a folder or on the Hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.errors import LoadError
from depthprune.tasks.base import TRAIN, Task, TaskData, TaskOptions, read_dataset, read_file, require_columns, task

if TYPE_CHECKING:
    from datasets import Dataset

HOLD_OUT = 0.1
EVAL_SPLITS = ("validation", "test")  # in the order of preference


@task("custom")
def custom(options: TaskOptions) -> TaskData:
    """Your own data: --dataset, --text-columns, --label-column; classes or numbers, by the label column.

    Whole numbers, words and booleans are classes; numbers with a fraction are a regression.

    Raises:
        LoadError: something is not said, or the data does not have it.
    """
    for flag, value in (
        ("--dataset", options.dataset),
        ("--text-columns", options.text_columns),
        ("--label-column", options.label_column),
    ):
        if not value:
            raise LoadError(f"--task custom needs {flag}")
    assert options.dataset and options.label_column
    if len(options.text_columns) > 2:
        raise LoadError(f"an encoder reads one text or a pair, not {len(options.text_columns)}; join columns first")
    read = _read(options.dataset)
    columns = (*options.text_columns, options.label_column)
    train, evaluation, eval_split, notes = _split(read, columns, options)
    train, evaluation = train.select_columns(list(columns)), evaluation.select_columns(list(columns))
    labels, names, note = _labels(train, evaluation, options.label_column, eval_split)
    entry = Task(
        name="custom",
        text_columns=options.text_columns,
        label_column=options.label_column,
        labels=names,
        metrics=_metrics(len(labels)),
        eval_splits={"": eval_split},
    )
    numbered = {
        split: _number(rows, options.label_column, labels) for split, rows in ((TRAIN, train), (eval_split, evaluation))
    }
    return TaskData(entry, numbered, (*notes, note))


def _read(dataset: str) -> Any:
    path = Path(dataset).expanduser()
    return read_file(path) if path.is_file() else read_dataset(str(path) if path.is_dir() else dataset)


def _split(read: Any, columns: tuple[str, ...], options: TaskOptions) -> tuple["Dataset", "Dataset", str, list[str]]:
    """Return the rows to train on, those to be scored on, the name of that split, and what to say about it."""
    if TRAIN not in read:
        raise LoadError(f"'{options.dataset}' has no split 'train'; it has {', '.join(map(repr, read))}")
    if options.eval_split is not None and options.eval_split not in read:
        raise LoadError(f"'{options.dataset}' has no split '{options.eval_split}'; it has {', '.join(map(repr, read))}")
    chosen = options.eval_split or next((split for split in EVAL_SPLITS if split in read), None)
    if chosen == TRAIN:
        raise LoadError(
            "--eval-split train would score on the rows that are trained on; choose another or leave it out"
        )
    for split in filter(None, (TRAIN, chosen)):  # before a hold-out shuffles: a row's number is that of the file
        require_columns(read[split], split, columns)
        _check_labels_present(read[split], split, columns[-1])
    if chosen is not None:
        note = f"scored on the split '{chosen}', {len(read[chosen])} rows"
        return read[TRAIN], read[chosen], chosen, [note]
    if len(read[TRAIN]) < 2:
        raise LoadError(f"'{options.dataset}' has {len(read[TRAIN])} rows, too few to hold some out; give more")
    halves = read[TRAIN].train_test_split(test_size=HOLD_OUT, seed=options.seed)
    note = f"scored on {len(halves['test'])} rows held out of 'train' ({HOLD_OUT:.0%}, seed {options.seed})"
    return halves["train"], halves["test"], "held-out", [note]


def _labels(
    train: "Dataset", evaluation: "Dataset", column: str, eval_split: str
) -> tuple[Sequence[Any], tuple[str, ...], str]:
    """Return the classes in the order of their numbers (none for a regression), their names, and what to say."""
    feature = train.features[column]
    names = getattr(feature, "names", None)
    if names is not None:
        return (
            range(len(names)),
            tuple(names),
            f"classification: '{column}' has the classes {', '.join(names)}",
        )
    values = train[column][:]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values) and any(
        isinstance(value, float) for value in values
    ):
        return (), (), f"regression: '{column}' holds numbers with a fraction, {min(values)} to {max(values)}"
    odd = next((value for value in values if not isinstance(value, str | int)), None)
    if odd is not None:
        raise LoadError(f"the labels in '{column}' are neither numbers nor words ({odd!r}); give one value a row")
    classes = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    if len(classes) < 2:
        raise LoadError(f"every row of 'train' has the label {classes[0]!r} in '{column}'; there is nothing to learn")
    new = next((v for v in evaluation[column][:] if v not in set(classes)), None)
    if new is not None:
        raise LoadError(
            f"the split '{eval_split}' has the label {new!r}, which no row of 'train' has; add some or remove it"
        )
    shown = ", ".join(map(str, classes[:6])) + (", …" if len(classes) > 6 else "")
    return (
        classes,
        tuple(map(str, classes)),
        f"classification: '{column}' has {len(classes)} classes ({shown})",
    )


def _check_labels_present(rows: "Dataset", split: str, column: str) -> None:
    missing = next((i for i, value in enumerate(rows[column][:]) if value is None), None)
    if missing is not None:
        raise LoadError(f"row {missing} of '{split}' has no label in '{column}'; remove it or fill it in")


def _number(rows: "Dataset", column: str, classes: Sequence[Any]) -> "Dataset":
    """Put class numbers in the place of labels."""
    from datasets import Value

    if len(classes) == 0:
        return rows.cast_column(column, Value("float32"))
    numbers = {label: i for i, label in enumerate(classes)}
    values = [numbers.get(label, label) for label in rows[column][:]]
    return rows.remove_columns(column).add_column(column, values)


def _metrics(num_classes: int) -> tuple[str, ...]:
    if num_classes == 0:
        return ("pearson", "spearman")
    return ("accuracy", "f1") if num_classes == 2 else ("accuracy", "f1_macro")
