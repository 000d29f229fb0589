"""A cut model and the model that it was cut from, which is to teach it: found, compared, loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.checkpoints.companions import check_travelling
from depthprune.checkpoints.drop import locate_whole
from depthprune.checkpoints.history import original_kept, present_layers, read_history
from depthprune.errors import LoadError, PlanError, UserError
from depthprune.experiments.specification import stack_depth
from depthprune.healing.base import Cut
from depthprune.loading import load_model, load_to_score, load_tokenizer
from depthprune.plan import LayerPlan
from depthprune.pooled.loading import load_pooled
from depthprune.sources import ModelSource
from depthprune.tasks.heads import has_pooled_head

HIDDEN_SIZES = ("hidden_size", "d_model", "dim", "n_embd")  # entries of config.json, by architecture

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Pair:
    """A student and its teacher.

    Args:
        student: the model that was cut.
        root: the sentence-transformers folder that the student is the transformer of, if it is.
        teacher: the full model.
        teacher_root: as `root`.
    """

    student: ModelSource
    root: Path | None
    teacher: ModelSource
    teacher_root: Path | None

    @cached_property
    def pooling(self) -> tuple[str, ...]:
        """How one vector is made of a sequence.

        Raises:
            UserError: the two folders say different things.
        """
        from depthprune.tasks.pooling import read_pooling

        full = read_pooling(self.teacher_root or self.teacher.path)
        own = read_pooling(self.root) if self.root is not None else full
        if own != full:
            raise UserError(
                f"'{self.student.name}' pools by {' and '.join(own)} and its teacher by {' and '.join(full)}; give the "
                "model that it was cut from"
            )
        return full

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The student's."""
        return load_tokenizer(self.student)

    def check_tokenizers(self, texts: Sequence[str]) -> None:
        """Refuse two models that read the same text differently.

        Args:
            texts: to compare on.

        Raises:
            UserError: another vocabulary, or other tokens for one of the texts.
        """
        other = load_tokenizer(self.teacher)
        if self.tokenizer.get_vocab() != other.get_vocab():
            raise UserError(
                f"'{self.student.name}' and its teacher '{self.teacher.name}' have different vocabularies "
                f"({len(self.tokenizer.get_vocab()):,} and {len(other.get_vocab()):,} tokens); give the model that it "
                "was cut from"
            )
        own, full = (tokenizer(list(texts), truncation=True)["input_ids"] for tokenizer in (self.tokenizer, other))
        odd = next((text for text, one, two in zip(texts, own, full, strict=True) if one != two), None)
        if odd is not None:
            raise UserError(
                f"'{self.student.name}' and its teacher '{self.teacher.name}' read {odd[:40]!r} as different tokens; "
                "give the model that it was cut from"
            )

    def cut(self) -> Cut:
        """Return which layers of the teacher the student has, from its history; all are present that it has.

        Where the history does not lead from the teacher to the student, layers are those of the student.
        """
        depth, full = stack_depth(self.student), stack_depth(self.teacher)
        history = read_history(self.student.path)
        for start in range(len(history)):  # the teacher may have been cut before, too
            try:
                names = present_layers(history[start:])
                kept = original_kept(history[start:], next(iter(names)), depth) if len(names) == 1 else ()
                if len(names) == 1 and next(iter(names.values()))[0] == full:
                    return Cut(LayerPlan.from_kept(full, kept), done=True)
            except (LoadError, PlanError):
                continue
        return Cut(LayerPlan(depth, ()))

    def load(self, device: str) -> "Loaded":
        """Load both models in float32, the teacher in evaluation mode and without gradients.

        Raises:
            LoadError: weights that cannot be loaded, or not all of them.
        """
        import torch

        pooled = [has_pooled_head(source.config) for source in (self.student, self.teacher)]
        student: Any = load_pooled(self.student) if pooled[0] else load_model(self.student)
        teacher: Any = load_pooled(self.teacher) if pooled[1] else load_to_score(self.teacher)[0]
        dtypes = {tensor.dtype for tensor in student.parameters() if tensor.is_floating_point()}
        dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        teacher = teacher.float().to(device).eval().requires_grad_(False)
        return Loaded(student.float().to(device), teacher, dtype)


@dataclass(frozen=True)
class Loaded:
    """A pair in memory, in float32.

    Args:
        student: with the head it was saved with, if it has one.
        teacher: in evaluation mode.
        dtype: of the student's weights as they were saved, and will be again.
    """

    student: "PreTrainedModel"
    teacher: "PreTrainedModel"
    dtype: "torch.dtype"


class LoadedTeacher:
    """A teacher that is in memory; see `healing.base.Teacher`."""

    def __init__(self, source: ModelSource, model: "PreTrainedModel", pooling: tuple[str, ...]):
        self._source, self._model = source, model
        self.pooling = pooling

    @property
    def identity(self) -> str:
        """The model by content."""
        return self._source.identity

    def model(self) -> "PreTrainedModel":
        """Return the whole model."""
        return self._model


def find_pair(
    model: str | Path, teacher: str | Path, *, allow_pickle: bool = False, trust_remote_code: bool = False
) -> Pair:
    """Find a cut model and its teacher, and compare what their configurations say.

    Raises:
        LoadError: one of them cannot be loaded.
        UserError: they are the same model, or the teacher cannot have been what the model was cut from.
    """
    trust = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    pair = Pair(*locate_whole(model, **trust), *locate_whole(teacher, **trust))
    student, full = pair.student, pair.teacher
    check_travelling(pair.root or student.path)
    if student.path.resolve() == full.path.resolve() or student.identity == full.identity:
        raise UserError(
            f"'{model}' and its teacher are the same model, so there is nothing to learn; give the model that was cut "
            "and, as the teacher, the one before the cut"
        )
    depths = stack_depth(student), stack_depth(full)
    if depths[0] > depths[1]:
        raise UserError(
            f"'{model}' has {depths[0]} layers and its teacher '{teacher}' {depths[1]}; the teacher is the full model: "
            "exchange the two"
        )
    for key in HIDDEN_SIZES:
        sizes = [source.config.get(key) for source in (student, full)]
        if sizes[0] != sizes[1]:
            raise UserError(
                f"'{model}' has the hidden size {sizes[0]} ({key}) and its teacher '{teacher}' {sizes[1]}; give the "
                "model that it was cut from"
            )
    return pair
