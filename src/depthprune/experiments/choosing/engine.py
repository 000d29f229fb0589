"""How a model is run for scoring and searching. No torch."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Engine:
    """How the model is run.

    Args:
        batch_size: sequences per batch.
        device: `auto`, `cpu` or `cuda`.
        dtype: of the weights: `auto` for that of the checkpoint, `float32`, `bfloat16`, …
        layerwise: load one layer at a time.
        cache_memory: bytes of memory for cached hidden states.
        cache_dir: folder for hidden states that do not fit; if None, they are computed again.
    """

    batch_size: int = 16
    device: str = "auto"
    dtype: str = "auto"
    layerwise: bool = False
    cache_memory: int = 2 * 10**9
    cache_dir: Path | str | None = None
