"""What a recipe needs to heal a tiny model: rows, and a teacher."""

from datasets import Dataset, concatenate_datasets

from depthprune.healing.base import TrainingData
from depthprune.tasks import Task, TaskData
from depthprune.tasks.data.encoding import encode
from tiny_models import ARCHITECTURES, build, tiny_tokenizer

TASK = Task("first-word", ("text",), "label", ("ba", "be"), ("accuracy",))


class Full:
    """A teacher: the full model, with other weights than the student's."""

    identity, pooling = "sha256:full", ("mean",)

    def model(self):
        row = ARCHITECTURES["bert"]
        return build(row.classes["classification"], row.make_config(3), seed=1).requires_grad_(False)


def data(count: int = 32, *, unlabelled: int = 0, placeholder: int = -100) -> TrainingData:
    """Return labelled rows, and behind them some without labels, which have a number in the place of one."""
    texts = [("ba " if i % 2 else "be ") + " ".join(["da", "fu", "ki"][: i // 2 % 4]) for i in range(count)]
    rows = Dataset.from_dict({"text": texts, "label": [1 - i % 2 for i in range(count)]})
    encoded, looks = encode(TaskData(TASK, {"train": rows}), tiny_tokenizer(), 16)["train"], iter((0.2, 0.1, 0.3))
    if unlabelled:
        texts = [("fu " if i % 2 else "ki ") + " ".join(["be", "da", "ba"][: i // 2 % 4]) for i in range(unlabelled)]
        rows = Dataset.from_dict({"text": texts, "label": [0] * unlabelled})
        more = encode(TaskData(TASK, {"train": rows}), tiny_tokenizer(), 16)["train"].remove_columns("labels")
        more = more.add_column("labels", [placeholder] * unlabelled)  # pyright: ignore[reportCallIssue]
        encoded = concatenate_datasets([encoded, more.select_columns(encoded.column_names)])
    measure = lambda model, held_out: next(looks, 0.0)  # noqa: E731
    return TrainingData(encoded, tiny_tokenizer(), measure=measure, num_unlabelled=unlabelled)
