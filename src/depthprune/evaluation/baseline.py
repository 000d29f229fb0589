"""What a score stands beside: how the classes are shared out, and what saying the largest one every time scores."""

from collections import Counter
from collections.abc import Mapping

from depthprune.evaluation.base import in_unit_of, score
from depthprune.tasks.base import CLASSIFICATION, TRAIN, TaskData

SHOWN = 4  # classes in a note


def majority_baseline(data: TaskData) -> dict[str, float]:
    """Return every metric of always saying the largest class of the training rows; none where there are no classes.

    Where nothing is trained, the largest class of the rows that are scored.
    """
    if data.task.kind != CLASSIFICATION:
        return {}
    found = {}
    for prefix, split in data.task.eval_splits.items():
        expected = [int(label) for label in data.splits[split][data.task.label_column]]
        said = largest_class(data, split)
        found |= {prefix + name: value for name, value in score(data.task, expected, [said] * len(expected)).items()}
    return found


def largest_class(data: TaskData, split: str) -> int:
    """Return the number of the largest class of the training rows, or of a split without any."""
    rows = data.splits[TRAIN if TRAIN in data.splits else split]
    return Counter(map(int, rows[data.task.label_column])).most_common(1)[0][0]


def balance_note(data: TaskData, baseline: Mapping[str, float]) -> list[str]:
    """Say how the classes of the scored rows are shared out, and what the largest one scores; [] without classes."""
    if data.task.kind != CLASSIFICATION:
        return []
    split = next(iter(data.task.eval_splits.values()))
    counts = Counter(map(int, data.splits[split][data.task.label_column]))
    number = sum(counts.values())
    shares = [f"{100 * count / number:.0f} % '{data.task.labels[label]}'" for label, count in counts.most_common(SHOWN)]
    listed = ", ".join(shares) + (", …" if len(counts) > SHOWN else "")
    said = data.task.labels[largest_class(data, split)]
    scored = f"{data.task.primary} {in_unit_of(data.task.metrics[0], baseline[data.task.primary]).shown()}"
    return [f"classes of the {number} scored rows: {listed}; always '{said}' scores {scored}"]
