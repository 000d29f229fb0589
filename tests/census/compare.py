"""Flatten outputs and compare them, bit for bit."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

Flat = dict[str, torch.Tensor]
# What a model keeps for the next call has an entry a layer, of another length by design.
SKIPPED = (
    "past_key_values",
    "cache_params",
    "mems",
    "state",
    "decoder_cache",
    "encoder_cache",
    "padding_cache",
)


def flatten(output: Any) -> Flat:
    """Return every tensor in an output under its path."""
    return dict(_walk("", output))


def _walk(path: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path.removeprefix("."), value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in SKIPPED:
                yield from _walk(f"{path}.{key}", item)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _walk(f"{path}.{i}", item)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Compare values; a NaN equals a NaN."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    if one.is_floating_point():
        return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())
    return torch.equal(one, other)


def aligned(flat: Flat, depth: int, kept: tuple[int, ...], like: Flat) -> Flat:
    """Take from what has an entry a layer (or one more) those of the kept layers, where `like` has that many.

    That is how the auxiliary outputs of detectors, one for each decoder layer, are compared.
    """
    result = {}
    for path, tensor in flat.items():
        other = like.get(path)
        if other is not None and other.shape != tensor.shape and other.dim() == tensor.dim():
            for extra in (0, 1):
                chosen = torch.tensor([*range(extra), *(i + extra for i in kept)])
                odd = [d for d in range(tensor.dim()) if tensor.shape[d] != other.shape[d]]
                sizes = (tensor.shape[odd[0]], other.shape[odd[0]])
                if len(odd) == 1 and sizes == (depth + extra, len(chosen)):
                    tensor = tensor.index_select(odd[0], chosen)
                    break
        result[path] = tensor
    return _aligned_entries(result, depth, kept, like)


def _aligned_entries(flat: Flat, depth: int, kept: tuple[int, ...], like: Flat) -> Flat:
    """Rename the entries of lists with one a layer: `attentions.3` becomes `attentions.2` where layer 2 is gone."""
    result = dict(flat)
    for head in {path.rpartition(".")[0] for path in flat if path.rpartition(".")[2].isdigit()}:
        have, want = (
            {int(p.rpartition(".")[2]) for p in part if p.rpartition(".")[0] == head} for part in (flat, like)
        )
        for extra in (0, 1, -1):  # hidden states have one more, what happens between layers one less
            places = {i + extra: n + extra for n, i in enumerate(kept)} | ({0: 0} if extra == 1 else {})
            places.setdefault(depth - 1 + extra, len(kept) - 1 + extra)  # of all states only the last may be recorded
            chosen = {n: i for i, n in sorted(places.items(), reverse=True) if i in have and n >= 0}
            whole = max(have, default=0) == depth - 1 + extra or 0 not in have  # else a few chosen states
            if head and have != want and set(chosen) == want and whole:
                for i in have:
                    del result[f"{head}.{i}"]
                result.update({f"{head}.{n}": flat[f"{head}.{i}"] for n, i in chosen.items()})
                break
    return result


def difference(expected: Flat, got: Flat, *, rounding: float = 0) -> str | None:
    """Say where two outputs differ by more than `rounding` times the largest number, or None."""
    odd = sorted(set(expected) ^ set(got))
    if odd:
        return f"'{odd[0]}' is in only one of the outputs"
    for path, tensor in expected.items():
        if not same(tensor, got[path]):
            if tensor.shape != got[path].shape:
                return f"'{path}' has shape {tuple(got[path].shape)} instead of {tuple(tensor.shape)}"
            gap = (tensor.double() - got[path].double()).abs().nan_to_num(0).max().item()
            if tensor.is_floating_point() and gap <= rounding * tensor.double().abs().max().item():
                continue
            return f"'{path}' differs by up to {gap:.2g} (its largest is {tensor.double().abs().max().item():.2g})"
    return None


def shows(full: Flat, cut: Flat) -> bool:
    """Tell whether a cut shows in any finite part of the output."""
    for path, tensor in full.items():
        other = cut.get(path)
        if other is not None and tensor.shape == other.shape and not same(tensor, other):
            return True
    return False
