"""The embedded task: first sentences of the standard library's docstrings, by section of the library reference."""

from depthprune.errors import LoadError
from depthprune.tasks.base import TRAIN, Task, TaskData, TaskOptions, task
from depthprune.tasks.stdlib_docstrings import LABELS, rows

ROWS_SEED = 0  # of the split, which is part of the task: scores with different run seeds stay comparable


@task("docstrings")
def docstrings(options: TaskOptions) -> TaskData:
    """Embedded, needs no network: from a docstring's first sentence, which part of Python's library is it; accuracy."""
    if options.dataset or options.text_columns or options.label_column or options.eval_split or options.kind:
        raise LoadError("the task 'docstrings' brings its own data; leave --dataset and the columns out")
    from datasets import Dataset

    entry = Task("docstrings", ("sentence",), "label", LABELS, ("accuracy", "f1_macro"))
    splits = {split: Dataset.from_list(found) for split, found in rows(ROWS_SEED).items()}
    note = f"{len(splits[TRAIN])} rows to train on, {len(splits['validation'])} to be scored on, of other modules"
    return TaskData(entry, splits, (note,))
