"""The models of a run: the one that is cut, and the full one as a teacher."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from depthprune.errors import UserError
from depthprune.evaluation.base import evaluation_of
from depthprune.experiments.specification import needs_teacher
from depthprune.healing.base import Teacher
from depthprune.loading import load_tokenizer
from depthprune.sources import ModelSource, locate
from depthprune.specs import DropSpec, RunSpec
from depthprune.specs.healing import ARCHITECTURE
from depthprune.tasks import Task, TaskData
from depthprune.tasks.heads import fit_to_head, own_head
from depthprune.tasks.metrics.base import HIGHER

FullRun = Callable[[RunSpec, bool], Any]  # (its spec, whether its checkpoint is kept) to its result
KEPT_BYTES = 1 << 30  # a larger model is loaded anew for each run
_loaded: dict[
    tuple[str, str, str, int, int], tuple[Any, list[str]]
] = {}  # at most one, for the runs of a sweep's worker


def load_model(source: ModelSource, identity: str, task: Task, seed: int, device: str) -> tuple[Any, list[str]]:
    """Load the model with a task's head, which depends on the seed alone; the last one is kept for the next run."""
    from depthprune.profiling.footprint import weight_bytes

    key = (identity, task.kind, task.head, task.num_outputs, seed)
    if key not in _loaded:
        _loaded.clear()
        model, fresh = evaluation_of(task).load(source, task)
        if weight_bytes(model) > KEPT_BYTES:
            return model.to(device), fresh
        _loaded[key] = (model, fresh)
    model, fresh = _loaded[key]
    return copy.deepcopy(model).to(device), fresh


def load_to_cut(
    source: ModelSource, spec: RunSpec, task: Task, device: str, *, trained: Path | None
) -> tuple[Any, list[str]]:
    """Load the model that a run cuts, and the names of its fresh tensors.

    Args:
        trained: the checkpoint of the training for all plans, where there is one; else the model is as it was given.
    """
    if trained is None:
        return load_model(source, spec.model, task, spec.seed, device)
    whole = locate(trained, trust_remote_code=source.trust_remote_code)
    return load_model(whole, whole.identity, task, spec.seed, device)


class FullModel:
    """A teacher that is a checkpoint, loaded when a method first asks for it; see `healing.base.Teacher`.

    Args:
        source: the checkpoint, fine-tuned on the task.
        task: which head it has.
        device: where the student is.
    """

    def __init__(self, source: ModelSource, task: Task, device: str):
        self._source, self._task, self._device = source, task, device
        self._model: Any = None

    @property
    def identity(self) -> str:
        """The model by content, as in a run's spec."""
        return self._source.identity

    @property
    def pooling(self) -> tuple[str, ...]:
        """How its folder makes one vector of a sequence; the mean over real tokens where it says nothing."""
        from depthprune.tasks.pooling import read_pooling

        return read_pooling(self._source.path)

    def model(self) -> Any:
        """Return the whole model, in evaluation mode and without gradients, where the student is.

        Raises:
            UserError: its head is not trained.
        """
        if self._model is None:
            model, fresh = evaluation_of(self._task).load(self._source, self._task)
            if fresh:
                raise UserError(
                    f"the teacher '{self._source.name}' has no trained '{fresh[0]}' for "
                    f"{self._task.num_outputs} outputs; give one that is fine-tuned on the task"
                )
            self._model = model.to(self._device).eval().requires_grad_(False)
        return self._model


def teacher_of(
    source: ModelSource, data: TaskData, spec: RunSpec, given: ModelSource | None, device: str, run_full: FullRun
) -> Teacher | None:
    """Return the teacher that a recipe needs: the given one, or the full model's run; None where it needs none.

    Raises:
        UserError: the given model is not the one that the recipe names, or the full one has not learned the task.
    """
    if not needs_teacher(spec.heal):
        return None
    if spec.heal.teacher != (given.identity if given is not None else ""):
        named = f"'{spec.heal.teacher[:19]}…'" if spec.heal.teacher else "none"
        raise UserError(f"the recipe names the teacher {named}, and another one is given; give the one that it names")
    if given is None:
        taught = run_full(replace(spec, drop=DropSpec(), heal=spec.heal.for_full()), not spec.heal.fine_tuned)
        if spec.heal.fine_tuned:
            _check_taught(taught, source, data)
            return FullModel(source, data.task, device)
        assert taught.model is not None, "a run that is saved has a checkpoint"
        given = locate(taught.model, trust_remote_code=source.trust_remote_code)
    else:
        check_given(given, source, data)
    return FullModel(given, data.task, device)


def check_given(given: ModelSource, source: ModelSource, data: TaskData) -> None:
    """Refuse a teacher that reads other token ids, or whose outputs mean something else.

    Raises:
        UserError: one of these.
    """
    if load_tokenizer(given).get_vocab() != load_tokenizer(source).get_vocab():
        raise UserError(
            f"the teacher '{given.name}' has another vocabulary than '{source.name}', so it cannot read the same rows; "
            "give a teacher with the same tokenizer"
        )
    if (own := own_head(given.config)) and own != data.task.head:
        raise UserError(
            f"the head of the teacher '{given.name}' reads {_read_by(own)}, and that of '{source.name}' "
            f"{_read_by(data.task.head)}; give --head {own}, or a teacher with such a head"
        )
    if fit_to_head(data, given.config, given.name, head=data.task.head).task.outputs != data.task.outputs:
        raise UserError(
            f"the outputs of the teacher '{given.name}' stand in another order than those of '{source.name}'; give the "
            "teacher itself as the model, or one with the same order"
        )


def _read_by(head: str) -> str:
    return "what its architecture says" if head == ARCHITECTURE else f"states pooled by {head}"


def _check_taught(full: Any, source: ModelSource, data: TaskData) -> None:
    """Refuse a model as the teacher that does no better as it is than always saying the largest class.

    Raises:
        UserError: it does not.
    """
    primary, measured = full.outcome["primary"], full.measured
    baseline = full.outcome.get("baseline", {}).get(primary, 0.0 if measured.better == HIGHER else None)
    if baseline is None:
        return  # nothing is known that knows nothing
    least = replace(measured, value=baseline)
    if measured.merit <= least.merit:
        raise UserError(
            f"'{source.name}' has a head for '{data.task.name}', but as it is scores {primary} {measured.shown()}, "
            f"and knowing nothing {least.shown()}: it has not learned this task and cannot teach it; fine-tune it "
            "first (depthprune finetune), give --teacher, or train without a teacher (--heal finetune)"
        )
