"""Whether a training fits into memory; where its weights and AdamW's states alone cannot, it is refused beforehand.

What is needed is a lower bound, from the headers of the weights: float32 weights of the model and of its teacher, and
for each weight that learns its gradient and two moments. Activations come on top and are not counted. No torch, but for
GPUs.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from depthprune import processes
from depthprune.checkpoints.header import DTYPE_BITS, read_file
from depthprune.checkpoints.layout import find_prefix, split_name
from depthprune.errors import CannotDropError, UserError
from depthprune.healing.base import PlannedStep
from depthprune.plan import LayerPlan
from depthprune.sources import ModelSource

WEIGHT, LEARNING = 4, 12  # bytes in float32: of a weight; of its gradient and its two moments
TRAIN_NOTHING = ("freeze", "inherit")
TRAIN_A_PART = ("replace", "lora")  # of the weights; how large it is is not counted
OTHER_HEADS = ("lm_head.", "cls.")  # in the file, and not in a model with another head
CGROUP = Path("/sys/fs/cgroup")


def training_bytes(
    source: ModelSource, plan: LayerPlan, steps: Sequence[PlannedStep], teacher: ModelSource | None = None
) -> int | None:
    """Return the bytes that a recipe needs at least, on the device where it trains; None where they are unknown.

    Args:
        source: the model.
        plan: the layers that go.
        steps: the recipe.
        teacher: the model whose weights are loaded beside, where a step needs one; `source`, the full model, if None.
    """
    own = _counts(source.weights)
    if own is None:
        return None
    needed = WEIGHT * (stays := _staying(own, plan))
    if any(step.healer.needs_teacher for step in steps):
        other = _counts(teacher.weights) if teacher is not None else own
        needed += WEIGHT * sum((other or {}).values())
    trains_all = any(
        step.schedule.num_epochs > 0
        and (step.healer.one_by_one or not step.healer.drops)
        and step.healer.name not in (*TRAIN_NOTHING, *TRAIN_A_PART)
        and not getattr(step.options, "lora_rank", 0)
        for step in steps
    )
    frozen = any(step.healer.name == "freeze" for step in steps)
    return needed + (LEARNING * stays if trains_all and not frozen else 0)


def check_memory(needed: int | None, device: str, *, runs: int = 1, available: int | None = None) -> None:
    """Refuse what cannot fit into memory.

    Args:
        needed: bytes, at least; None for unknown.
        device: `cpu` or `cuda`.
        runs: how many runs need them together.
        available: bytes; what is free on the device now if None. Several processes of a torchrun are not checked.

    Raises:
        UserError: more is needed.
    """
    if needed is None or processes.count() > 1:
        return
    free = available_bytes(device) if available is None else available
    if needed > free:
        what = f"{runs} runs at a time need" if runs > 1 else "weights, gradients and AdamW's states take"
        fewer = "fewer runs at a time (--workers), or " if runs > 1 else ""
        raise UserError(
            f"{what} at least {_size(needed)} of memory, and {_size(free)} are free on the {device}; take {fewer}a "
            "recipe that trains a part (lora, distill with lora_rank, freeze), or a smaller model"
        )


def available_bytes(device: str) -> int:
    """Return the bytes of memory that can be taken on a device, those that swapping frees included."""
    if device.startswith("cuda"):
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    import psutil

    swap = psutil.swap_memory().free
    return min(psutil.virtual_memory().available, _within_cgroup(CGROUP)) + swap


def _within_cgroup(root: Path) -> int:
    """Return the bytes that a container's limit leaves; a lot where there is no limit."""
    names = {"memory.max": "memory.current", "memory/memory.limit_in_bytes": "memory/memory.usage_in_bytes"}
    free = 1 << 62
    for limit, usage in names.items():
        try:
            most, taken = (int((root / name).read_text()) for name in (limit, usage))
            stat = dict(line.split() for line in (root / limit).with_name("memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        caches = sum(int(stat.get(name, 0)) for name in ("active_file", "inactive_file"))
        free = min(free, most - taken + caches)
    return free


def _staying(counts: Mapping[str, int], plan: LayerPlan) -> int:
    """Return how many weights stay."""
    total = sum(counts.values())
    try:
        prefix = find_prefix(counts, plan.depth)
    except CannotDropError:
        return total * len(plan.kept) // plan.depth  # at least: what is outside the layers stays too
    split = {name: split_name(name) for name in counts}
    return total - sum(
        count for name, count in counts.items() if (at := split[name]) and at[0] == prefix and at[1] in plan.dropped
    )


@lru_cache
def _counts(files: tuple[Path, ...]) -> dict[str, int] | None:
    """Return tensor → how many numbers it has; None where a file does not say."""
    if not files or any(file.suffix != ".safetensors" for file in files):
        return None
    tensors = (tensor for file in files for tensor in read_file(file)[0] if not tensor.name.startswith(OTHER_HEADS))
    return {tensor.name: tensor.num_bytes * 8 // DTYPE_BITS[tensor.dtype] for tensor in tensors}


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
