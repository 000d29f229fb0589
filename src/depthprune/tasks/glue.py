"""The nine GLUE tasks (Wang et al., 2019, https://arxiv.org/abs/1804.07461), scored on their development sets.

Read with `datasets.load_dataset(DATASET, task)`: `nyu-mll/glue` on the Hub, or a folder in the same layout. The metrics
are the benchmark's own; the first is the primary one.
"""

from dataclasses import replace

from depthprune.errors import LoadError
from depthprune.tasks.base import TRAIN, Task, TaskData, TaskOptions, task
from depthprune.tasks.data.reading import read_dataset, require_columns

HUB_ID = "nyu-mll/glue"

_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_MNLI_SPLITS = {"matched_": "validation_matched", "mismatched_": "validation_mismatched"}

GLUE = {
    entry.name: entry
    for entry in (
        Task("cola", ("sentence",), "label", ("unacceptable", "acceptable"), ("matthews",)),
        Task(
            "mnli",
            ("premise", "hypothesis"),
            "label",
            ("entailment", "neutral", "contradiction"),
            ("accuracy",),
            _MNLI_SPLITS,
        ),
        Task("mrpc", _PAIR, "label", ("not_equivalent", "equivalent"), ("accuracy", "f1")),
        Task("qnli", ("question", "sentence"), "label", _ENTAILMENT, ("accuracy",)),
        Task("qqp", ("question1", "question2"), "label", ("not_duplicate", "duplicate"), ("accuracy", "f1")),
        Task("rte", _PAIR, "label", _ENTAILMENT, ("accuracy",)),
        Task("sst2", ("sentence",), "label", ("negative", "positive"), ("accuracy",)),
        Task("stsb", _PAIR, "label", (), ("pearson", "spearman")),
        Task("wnli", _PAIR, "label", ("not_entailment", "entailment"), ("accuracy",)),
    )
}

_SUMMARIES = {
    "cola": "acceptability of a sentence; Matthews correlation",
    "mnli": "entailment, neutral or contradiction; accuracy, matched and mismatched",
    "mrpc": "paraphrase or not; accuracy and F1",
    "qnli": "does the sentence answer the question; accuracy",
    "qqp": "duplicate questions; accuracy and F1",
    "rte": "entailment or not; accuracy",
    "sst2": "sentiment of a sentence; accuracy",
    "stsb": "similarity of two sentences, 0 to 5; Pearson and Spearman correlation",
    "wnli": "entailment after resolving a pronoun; accuracy",
}


def load_glue(name: str, options: TaskOptions) -> TaskData:
    """Load one GLUE task.

    Raises:
        LoadError: if the data cannot be read, or lacks a split or a column.
    """
    if options.text_columns or options.label_column or options.kind:
        raise LoadError(f"the columns of '{name}' are fixed; for other data use --task custom")
    if options.eval_split and not options.scoring_only:
        raise LoadError(f"the splits of '{name}' are fixed; for other data use --task custom")
    entry = GLUE[name]
    if options.eval_split:
        entry = replace(entry, eval_splits={"": options.eval_split})
    dataset = options.dataset or HUB_ID
    read = read_dataset(dataset, name)
    splits = {}
    for split in (*(() if options.scoring_only else (TRAIN,)), *entry.eval_splits.values()):
        if split not in read:
            raise LoadError(f"'{dataset}' has no split '{split}' for '{name}'; it has {', '.join(map(repr, read))}")
        columns = (*entry.text_columns, entry.label_column)
        require_columns(read[split], split, columns)
        splits[split] = read[split].select_columns(list(columns))
    return TaskData(entry, splits)


def _register(name: str) -> None:
    @task(name, summary=f"GLUE: {_SUMMARIES[name]}")
    def load(options: TaskOptions) -> TaskData:
        return load_glue(name, options)


for _name in GLUE:
    _register(_name)
