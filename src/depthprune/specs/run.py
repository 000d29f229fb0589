"""What a run is, as values. The digest of a spec names the run.

Model and data stand in a spec by content (a hash, or a Hub commit), never by path, so the same run has the same name
on every machine. Layers stand in it as indices, so two strategies that make the same choice share a run.

A field that is added later gets a default and `metadata={"later": True}` (`option(…, later=True)`); it stays out of the
digest while it has that default, and old results stay valid.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any

from depthprune.specs.healing import HealSpec, heal_of
from depthprune.specs.options import option


@dataclass(frozen=True)
class DropSpec:
    """The layers to drop, by index before the drop.

    Args:
        dropped: ascending.
        order: the same layers in the order of a gradual drop.
    """

    dropped: tuple[int, ...] = ()
    order: tuple[int, ...] = field(default=(), metadata={"later": True})


@dataclass(frozen=True)
class EvalSpec:
    """The task and its data.

    Args:
        task: name of the task.
        data: `sha256:…` over the rows and the columns the task reads.
        outputs: the output of a trained head for each label, where its order is not the data's.
        metric: the primary metric, where it was chosen and is not the task's own.
    """

    task: str
    data: str
    max_length: int = option(128, "Tokens to which an example is cut.", group="Data", minimum=4)
    outputs: tuple[int, ...] = field(default=(), metadata={"later": True})
    metric: str = field(default="", metadata={"later": True})


@dataclass(frozen=True)
class RunSpec:
    """One run: a model, the layers to drop, how it is healed, what it is evaluated on.

    Args:
        model: `sha256:…` of a local model, or `hub:ID@COMMIT`.
    """

    model: str
    evaluation: EvalSpec
    drop: DropSpec = field(default_factory=DropSpec)
    heal: HealSpec = field(default_factory=HealSpec)
    seed: int = option(42, "Of the new head, dropout and the order of the rows.", group="Running", minimum=0)

    def digest(self) -> str:
        """Return the run's name: twelve hex digits of SHA-256 over the canonical JSON of the spec."""
        return hashlib.sha256(canonical_json(self).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return the whole spec as JSON values."""
        return json.loads(json.dumps(asdict(self)))


def run_spec_of(values: Mapping[str, Any]) -> RunSpec:
    """Return the spec in a record.

    Raises:
        KeyError, TypeError, ValueError: if the values are not those of a spec.
    """
    drop = {name: tuple(map(int, layers)) for name, layers in values["drop"].items()}
    said: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["evaluation"].items()}
    evaluation = EvalSpec(**said)
    return RunSpec(values["model"], evaluation, DropSpec(**drop), heal_of(values["heal"]), values["seed"])


def canonical_json(spec: Any) -> str:
    """Return a spec, or a part of one, as JSON: equal ones give the same text, 3 and 3.0 epochs too.

    A field that was added later is left out at its default.
    """
    return json.dumps(_canonical(spec), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _canonical(spec: Any) -> dict[str, Any]:
    values = {}
    for item in fields(spec):
        value = getattr(spec, item.name)
        if item.metadata.get("later") and value == _default(item):
            continue
        values[item.name] = _canonical_value(value)
    return values


def _canonical_value(value: Any) -> Any:
    if is_dataclass(value):
        return _canonical(value)
    if isinstance(value, tuple):
        return [_canonical_value(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value  # 3 and 3.0 epochs are one run


def _default(item: Any) -> Any:
    return item.default if item.default is not MISSING else item.default_factory()
