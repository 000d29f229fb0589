"""Calibration: run a model on rows, and see what enters or leaves some of its modules.

Rows of one length make a batch, so that there is no padding: every token counts, and the order of the dimensions of a
state (XLNet's are [T, B, D]) does not matter.

Shapes: B sequences, T tokens, N tokens of a batch, D hidden size.
"""

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from depthprune.errors import UserError
from depthprune.healing.base import TrainingData
from depthprune.surgery.bypass import given_states
from depthprune.surgery.partial import leaving

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH = 32  # rows
INPUTS = ("input_ids", "attention_mask", "token_type_ids")

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Site:
    """A place in a model where states pass.

    Args:
        module: of which they are the input or the output.
        entering: whether they are its input.
    """

    module: nn.Module
    entering: bool = False


class _Seen(Exception):
    """Ends a forward pass once all sites have been passed."""


def calibration_batches(
    name: str, data: TrainingData, examples: int, seed: int, model: "PreTrainedModel"
) -> list[dict[str, Any]]:
    """Return a sample of the rows as batches without padding, where the model is.

    Args:
        name: of the method, for messages.
        examples: rows; all if there are fewer.
        seed: of the sample.

    Raises:
        UserError: there are no rows.
    """
    chosen = torch.randperm(len(data.rows), generator=torch.Generator().manual_seed(seed))[:examples].tolist()
    rows = data.rows.select(sorted(chosen))
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, ids in enumerate(rows["input_ids"][:]):
        by_length[len(ids)].append(number)
    by_length.pop(0, None)
    if not by_length:
        raise UserError(f"'{name}' needs rows to calibrate on, and there are none; give a task or a text with some")
    takes = inspect.signature(model.base_model.forward).parameters
    batches: list[dict[str, Any]] = []
    for _, numbers in sorted(by_length.items()):
        for start in range(0, len(numbers), BATCH):
            part = rows.select(numbers[start : start + BATCH])
            inputs = {
                key: torch.tensor(part[key][:], device=model.device) for key in INPUTS if key in rows.column_names
            }
            batches.append({**inputs, **({"use_cache": False} if "use_cache" in takes else {})})
    return batches


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put models into evaluation mode, without gradients, for as long as the context lasts."""
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():  # inference_mode would make weights that cannot be trained
            yield
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


def states_at(model: "PreTrainedModel", batch: Batch, sites: Sequence[Site]) -> list[Tensor]:
    """Run a model, without its head, as far as the last of some sites, and return the states there.

    Raises:
        UserError: a site that the model does not pass.
    """
    seen: dict[Site, Tensor] = {}

    def see(site: Site, states: Tensor) -> None:
        seen.setdefault(site, states)
        if len(seen) == len(set(sites)):
            raise _Seen

    handles = []
    for site in sites:
        if site.entering:
            hook: Any = lambda module, args, kwargs, site=site: see(site, given_states(args, kwargs)[0])  # noqa: E731
            handles.append(site.module.register_forward_pre_hook(hook, with_kwargs=True))
        else:
            hook = lambda module, args, output, site=site: see(site, leaving(output))  # noqa: E731
            handles.append(site.module.register_forward_hook(hook))
    try:
        model.base_model(**batch)
    except _Seen:
        return [seen[site] for site in sites]
    finally:
        for handle in handles:
            handle.remove()
    lost = next(site for site in sites if site not in seen)
    raise UserError(f"the model does not run its {type(lost.module).__name__}, so that its states cannot be compared")


def refuse_infinite(finite: Tensor) -> None:
    """Refuse states that are not finite.

    Args:
        finite: tensors of truth values, `torch.isfinite` of the states or of their sums.

    Raises:
        UserError: they are not.
    """
    if not bool(finite.all()):
        raise UserError("the hidden states on the calibration rows are not finite; load the model in float32")


def vectors(states: Tensor) -> Tensor:
    """Return states [B, T, D] as one vector a token, float64 [N, D]."""
    return states.reshape(-1, states.shape[-1]).double()


@contextmanager
def changed(site: Site, change: Any) -> Iterator[None]:
    """Let a function of the states act at a site, for as long as the context lasts."""

    def entering(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        states = given_states(args, kwargs)[0]
        swap = lambda value: change(value) if value is states else value  # noqa: E731
        return tuple(map(swap, args)), {key: swap(value) for key, value in kwargs.items()}

    def leaving_it(module: nn.Module, args: tuple, output: Any) -> Any:
        states = leaving(output)
        if isinstance(output, Tensor):
            return change(states)
        return type(output)(change(item) if item is states else item for item in output)

    if site.entering:
        handle = site.module.register_forward_pre_hook(entering, with_kwargs=True)
    else:
        handle = site.module.register_forward_hook(leaving_it)
    try:
        yield
    finally:
        handle.remove()
