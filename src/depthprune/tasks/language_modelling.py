"""Running text of a person's own: what a causal language model is measured on, and healed on."""

from typing import TYPE_CHECKING

from depthprune.errors import LoadError
from depthprune.tasks.base import TRAIN, Task, TaskData, TaskOptions, task
from depthprune.tasks.custom import HELD_OUT, HOLD_OUT, choose_splits
from depthprune.tasks.data.texts import read_splits, text_columns
from depthprune.tasks.metrics.base import LANGUAGE_MODEL

if TYPE_CHECKING:
    from datasets import Dataset


NAME = "language-modelling"


@task(NAME)
def language_modelling(options: TaskOptions) -> TaskData:
    """Running text of your own (--dataset: a file, a folder or a Hub id); perplexity of a causal language model.

    Raises:
        LoadError: something is not said, or the data does not have it.
    """
    if not options.dataset:
        raise LoadError(f"--task {NAME} needs --dataset: a text file, or a folder or data set with the split 'train'")
    if options.label_column or options.kind:
        raise LoadError(f"the task '{NAME}' has no labels; leave --label-column and the kind of label out")
    if len(options.text_columns) > 1:
        raise LoadError("running text comes from one column; give one --text-columns")
    read = read_splits(options.dataset)
    learned_on, scored_on = choose_splits(read, options)
    learned_on = () if options.scoring_only else learned_on
    (column,) = text_columns(read[scored_on], options.dataset, options.text_columns)
    splits = {split: read[split].select_columns([column]) for split in dict.fromkeys((*learned_on, scored_on))}
    if options.scoring_only:
        note = f"scored on all {len(splits[scored_on])} lines of '{scored_on}'"
    elif scored_on == TRAIN:
        splits = _hold_out(splits[TRAIN], options.dataset)
        scored_on, note = HELD_OUT, f"scored on the last {len(splits[HELD_OUT])} lines of '{TRAIN}' ({HOLD_OUT:.0%})"
    else:
        note = f"scored on the split '{scored_on}', {len(splits[scored_on])} lines"
    entry = Task(NAME, (column,), "", (), ("perplexity",), {"": scored_on}, evaluation=LANGUAGE_MODEL)
    return TaskData(entry, splits, (note,))


def _hold_out(rows: "Dataset", dataset: str) -> "dict[str, Dataset]":
    """Hold the end of a text out: lines drawn from all over it would be told by their neighbours."""
    number = max(1, round(HOLD_OUT * len(rows)))
    if number >= len(rows):
        raise LoadError(f"'{dataset}' has {len(rows)} lines, too few to hold some out; give more")
    border = len(rows) - number
    return {TRAIN: rows.select(range(border)), HELD_OUT: rows.select(range(border, len(rows)))}
