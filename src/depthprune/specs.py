"""What a run is, as values. The digest of a spec names the run.

Model and data stand in a spec by content (a hash, or a Hub commit), never by path, so the same run has the same name
on every machine. Layers stand in it as indices, so two strategies that make the same choice share a run.

A field that is added later gets a default and `metadata={"later": True}`; it stays out of the digest while it has
that default, and old results stay valid.
"""

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class DropSpec:
    """The layers to drop, by index in the model that was given."""

    dropped: tuple[int, ...] = ()


@dataclass(frozen=True)
class HealSpec:
    """How to fine-tune what is left. The defaults are the paper's example.

    Args:
        num_epochs: passes over the training data.
        batch_size: examples a step.
        learning_rate: at the start; it decays linearly to zero, with no warm-up.
        weight_decay: AdamW's.
        precision: `float32`, `bfloat16` (autocast; weights stay float32), or `auto`: what a short probe finds faster.
        similar_lengths: put examples of like length into one batch, which saves padding and can cost score.
    """

    num_epochs: float = 3
    batch_size: int = 32
    learning_rate: float = 2e-5
    weight_decay: float = 0.0
    precision: str = "auto"
    similar_lengths: bool = False


@dataclass(frozen=True)
class EvalSpec:
    """The task and its data.

    Args:
        task: name of the task.
        data: `sha256:…` over the rows and the columns the task reads.
        max_length: tokens to which an example is cut.
    """

    task: str
    data: str
    max_length: int = 128


@dataclass(frozen=True)
class RunSpec:
    """One run: a model, the layers that go, how it is healed, what it is scored on.

    Args:
        model: `sha256:…` of a local model, or `hub:ID@COMMIT`.
    """

    model: str
    evaluation: EvalSpec
    drop: DropSpec = field(default_factory=DropSpec)
    heal: HealSpec = field(default_factory=HealSpec)
    seed: int = 42

    def digest(self) -> str:
        """Return the run's name: twelve hex digits of SHA-256 over the canonical JSON of the spec."""
        text = json.dumps(_canonical(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return the whole spec as JSON values."""
        return json.loads(json.dumps(asdict(self)))


def _canonical(spec: Any) -> dict[str, Any]:
    values = {}
    for item in fields(spec):
        value = getattr(spec, item.name)
        if item.metadata.get("later") and value == _default(item):
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 3 and 3.0 epochs are one run
        values[item.name] = _canonical(value) if is_dataclass(value) else value
    return values


def _default(item: Any) -> Any:
    return item.default if item.default is not MISSING else item.default_factory()
