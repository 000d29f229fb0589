"""How a sentence-transformers folder pools a sequence into one vector, by its `1_Pooling/config.json`.

Shapes: B sequences, T tokens, D hidden size.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from depthprune.errors import LoadError

MEAN = ("mean",)
POOLING = "Pooling"  # the class in modules.json
PREFIX, TOKEN = "pooling_mode_", "_token"  # prefix of the boolean entries


def read_pooling(folder: Path) -> tuple[str, ...]:
    """Return the pooling modes of a folder; the mean over real tokens if it has none.

    Raises:
        LoadError: if the file cannot be read, or asks for a pooling mode that is not implemented here.
    """
    file = next((folder / place / "config.json" for place in _places(folder)), None)
    if file is None or not file.is_file():
        return MEAN
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        modes = _modes(said)
    except (OSError, ValueError, AttributeError) as error:
        raise LoadError(f"'{file}' is not the pooling configuration of sentence-transformers ({error})") from None
    unknown = [mode for mode in modes if mode not in WAYS]
    if unknown:
        raise LoadError(f"'{file}' pools by '{unknown[0]}', which is not implemented here ({', '.join(WAYS)})")
    return modes or MEAN


def pooled_BD(states_BTD: Tensor, mask_BT: Tensor, pooling: tuple[str, ...] = MEAN) -> Tensor:
    """Return one vector a sequence; several ways of pooling stand side by side in it.

    Args:
        states_BTD: hidden states that leave the last layer.
        mask_BT: 1 for real tokens, 0 for padding.
        pooling: what `read_pooling` gave.
    """
    mask_BT1 = mask_BT.unsqueeze(-1).to(states_BTD.dtype)
    return torch.cat([WAYS[way](states_BTD, mask_BT1) for way in pooling], dim=-1)


def _places(folder: Path) -> list[str]:
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return [part["path"] for part in modules if part["type"].rpartition(".")[2] == POOLING]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _modes(said: dict[str, Any]) -> tuple[str, ...]:
    """Read both forms: a boolean for each mode, or `pooling_mode` with one or several names."""
    named = said.get("pooling_mode")
    if named is not None:
        return (named,) if isinstance(named, str) else tuple(map(str, named))
    on = [name.removeprefix(PREFIX) for name, value in said.items() if name.startswith(PREFIX) and value is True]
    return tuple({"mean_tokens": "mean", "max_tokens": "max", "cls_token": "cls"}.get(name, name) for name in on)


def _mean(states_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
    return (states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)


def _root_mean(states_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
    return (states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).sqrt()


def _max(states_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
    return states_BTD.masked_fill(mask_BT1 == 0, -torch.inf).amax(1)


def _first(states_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
    return _at(states_BTD, mask_BT1.squeeze(-1).argmax(1))


def _last(states_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
    return _at(states_BTD, states_BTD.shape[1] - 1 - mask_BT1.squeeze(-1).flip(1).argmax(1))


def _weighted(states_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
    return _mean(states_BTD, mask_BT1 * mask_BT1.cumsum(1))


def _at(states_BTD: Tensor, place_B: Tensor) -> Tensor:
    return states_BTD[torch.arange(len(states_BTD), device=states_BTD.device), place_B]


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": _mean,
    "cls": _first,
    "max": _max,
    "mean_sqrt_len_tokens": _root_mean,
    "lasttoken": _last,
    "weightedmean_tokens": _weighted,
    "weightedmean": _weighted,
}
