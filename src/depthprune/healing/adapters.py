"""Low-rank adapters (LoRA, Hu et al., 2021) through PEFT: trained in place of the weights, and merged into them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from depthprune.errors import UserError
from depthprune.optional import require

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def adapters(
    model: "PreTrainedModel", *, rank: int, alpha: float, dropout: float, targets: Sequence[str], seed: int
) -> Iterator[None]:
    """Train adapters and the head for as long as the context lasts; then the adapters are in the weights.

    Args:
        model: changed in place. Its head, everything outside its base model, learns as it is; what is frozen has no
            adapters.
        rank: of the adapters.
        alpha: their output is scaled by alpha / rank.
        dropout: of their input.
        targets: ends of the names of the linear layers that get one, such as `query`; all of them if empty.
        seed: of their first weights.

    Raises:
        UserError: PEFT is not installed, or there is no such linear layer.
    """
    import torch
    from torch import nn

    peft: Any = require("peft", extra="adapters", purpose="healing with LoRA")
    base: Any = model.base_model
    linear = {name: module for name, module in base.named_modules() if isinstance(module, nn.Linear)}
    ends = {name.rpartition(".")[2] for name in linear}
    chosen = [
        f"{model.base_model_prefix}.{name}"
        for name, module in linear.items()
        if module.weight.requires_grad and (not targets or any(_is_end(end, name) for end in targets))
    ]
    lacking = [end for end in targets if not any(_is_end(end, name) for name in linear)]
    if lacking:
        raise UserError(f"the model has no linear layer '{lacking[0]}' for LoRA; it has {', '.join(sorted(ends))}")
    if not chosen:
        raise UserError("every linear layer that LoRA would change is frozen; freeze less, or leave LoRA out")
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    inside = {id(parameter) for parameter in base.parameters()}
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=chosen)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tuner = peft.tuners.lora.LoraModel(model, {"default": config}, "default")
    for parameter in learning:
        parameter.requires_grad_(id(parameter) not in inside)
    try:
        yield
    finally:
        tuner.merge_and_unload()
        for parameter in learning:
            parameter.requires_grad_(True)


def _is_end(end: str, name: str) -> bool:
    return name == end or name.endswith(f".{end}")
