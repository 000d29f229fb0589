"""How a model is run when its layers are scored or searched. No torch."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Engine:
    """How the model is run.

    Args:
        batch_size: sequences a batch.
        device: `auto`, `cpu` or `cuda`.
        dtype: of the weights: `auto` for that of the checkpoint, `float32`, `bfloat16`, …
        layerwise: load one layer at a time.
        cache_memory: bytes of hidden states kept in memory for reuse.
        cache_dir: where hidden states go that do not fit; none: they are computed again.
    """

    batch_size: int = 16
    device: str = "auto"
    dtype: str = "auto"
    layerwise: bool = False
    cache_memory: int = 2 * 10**9
    cache_dir: Path | str | None = None
