"""Where layers are missing, and the full and the cut model side by side."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from depthprune.errors import CannotDropError, UserError
from depthprune.healing.base import Cut, Teacher
from depthprune.plan import LayerPlan, format_layers

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Gap:
    """A run of dropped layers, by index in the full model.

    Args:
        dropped: consecutive layers.
        before: the kept layer before them; None where they were the first.
        after: the kept layer after them; None where they were the last.
    """

    dropped: tuple[int, ...]
    before: int | None
    after: int | None

    def __str__(self) -> str:
        """Return what messages call the layers.

        >>> str(Gap((2, 3), 1, 4)), str(Gap((2,), 1, 3))
        ('layers 2-3', 'layer 2')
        """
        return f"layer{'s' if len(self.dropped) > 1 else ''} {format_layers(self.dropped)}"


def gaps(plan: LayerPlan) -> tuple[Gap, ...]:
    """Return the runs of layers that a plan drops, ascending.

    >>> [str(gap) for gap in gaps(LayerPlan(6, (1, 3, 4)))]
    ['layer 1', 'layers 3-4']
    """
    runs: list[list[int]] = []
    for layer in plan.dropped:
        if runs and runs[-1][-1] == layer - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return tuple(
        Gap(
            tuple(run),
            run[0] - 1 if run[0] else None,
            run[-1] + 1 if run[-1] + 1 < plan.depth else None,
        )
        for run in runs
    )


@dataclass(frozen=True)
class Sides:
    """The full model and the cut one, whose gaps are to be repaired.

    Args:
        name: of the method, for messages.
        full: is left as it is; may share tensors with the cut one.
        cut: is repaired in place.
        plan: the layers that `cut` lacks.
        full_layers: all layers of `full`.
        layers: layers of `cut`, by index in the full model.
    """

    name: str
    full: "PreTrainedModel"
    cut: "PreTrainedModel"
    plan: LayerPlan
    full_layers: tuple["nn.Module", ...]
    layers: dict[int, "nn.Module"]


def both_sides(name: str, model: "PreTrainedModel", cut: Cut, teacher: Teacher | None) -> Sides:
    """Drop the layers that are still to go, and return the full model beside the cut one.

    A model that was cut already is compared with its teacher, the model that it was cut from.

    Args:
        name: of the method, for messages.
        model: loses its layers, in place.

    Raises:
        CannotDropError: the architecture does not allow the plan, or its layers are no modules of their own.
        UserError: the layers have gone already, and there is no full model.
    """
    if cut.pending:
        tensors = (*model.parameters(), *model.buffers())
        full = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})  # shares them: it takes no memory
        cut.drop(model, cut.pending)
    elif teacher is not None:
        full = teacher.model()
    else:
        raise UserError(
            f"'{name}' compares the cut model with the full one, and the layers have gone before it; give it as the "
            "one step of the recipe that drops them"
        )
    full_layers = Cut(cut.plan).modules(full, range(cut.plan.depth))
    layers = cut.modules(model, cut.plan.kept)
    if (len(full_layers), len(layers)) != (cut.plan.depth, len(cut.plan.kept)):
        raise CannotDropError(
            f"'{name}' repairs layers that are one module each, and those of '{model.config.model_type}' are not; take "
            "a method that trains"
        )
    return Sides(name, full, model, cut.plan, tuple(full_layers), dict(zip(cut.plan.kept, layers, strict=True)))


def nothing_to_repair(name: str, cut: Cut, teacher: Teacher | None) -> bool:
    """Tell whether no layer is missing.

    Raises:
        UserError: if layers are missing and the history does not say which.
    """
    if cut.plan.dropped:
        return False
    if teacher is not None:
        from depthprune.surgery.modules import find_stacks

        depth = next(iter(find_stacks(teacher.model()).values())).depth
        if depth != cut.plan.depth:
            raise UserError(
                f"'{name}' has to know which of the teacher's {depth} layers the model lacks, and the model's history "
                "does not say; cut it with depthprune drop"
            )
    return True


def repairable(name: str, plan: LayerPlan) -> tuple[tuple[Gap, ...], tuple[str, ...]]:
    """Return the gaps that have a layer before them to take over the work, and a note on one that has none.

    Raises:
        UserError: there is none at all.
    """
    found = gaps(plan)
    possible = tuple(gap for gap in found if gap.before is not None)
    if found and not possible:
        raise UserError(
            f"'{name}' folds the work of {found[0]} into the layer before, and there is none; keep layer 0, or take "
            "'compensate'"
        )
    alone = [gap for gap in found if gap.before is None]
    return possible, tuple(f"{name}: {gap} had no layer before, so nothing took over the work" for gap in alone)
