"""The files of analyses: `STORE/analyses/<kind>-<digest of its inputs>.json`, each made once.

A file is of one token, or of the mean of the tokens; several that were asked for together come from one pass.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.errors import LoadError, OutputError
from depthprune.experiments.analyses.subject import Analysed
from depthprune.experiments.environment import environment
from depthprune.result_file import replace_json
from depthprune.scores.base import check_token
from depthprune.tasks import TaskData

if TYPE_CHECKING:
    import numpy as np

FOLDER = "analyses"  # of a store
DIGITS = 6  # significant ones of a covariance


@dataclass(frozen=True)
class AnalysisResult:
    """A finished analysis.

    Args:
        record: the content of its file.
        file: in the store.
        stored: whether the file existed before.
        notes: what the user should know about how the data was read.
        more: the same at the further tokens that were asked for.
    """

    record: dict[str, Any]
    file: Path
    stored: bool
    notes: tuple[str, ...] = ()
    more: tuple["AnalysisResult", ...] = ()

    @property
    def values(self) -> tuple[float, ...]:
        """After the embeddings, and after 1, 2, … layers."""
        return tuple(self.record["values"])


@dataclass(frozen=True)
class Measured:
    """What a pass found at one token.

    Args:
        values: after the embeddings and after each layer.
        covariance: of the values over rows, [L + 1, L + 1]; None where it cannot be known.
    """

    values: Sequence[float]
    covariance: "np.ndarray | None"

    def entries(self) -> dict[str, Any]:
        """Return the entries of a record."""
        found: dict[str, Any] = {"values": [float(value) for value in self.values]}
        if self.covariance is not None:
            found["covariance"] = [[float(f"{value:.{DIGITS}g}") for value in row] for row in self.covariance.tolist()]
        return found


@dataclass(frozen=True)
class Asked:
    """What an analysis is of.

    Args:
        kind: `probe` or `similarity`.
        models: that are analysed; for a similarity the one before fine-tuning first.
        data: the rows.
        metric: of the values.
        inputs: what else the values depend on: `max_length`, `seed` and so on.
        examples: numbers of rows, for training and for evaluation.
        device: that the models run on.
    """

    kind: str
    models: Sequence[Analysed]
    data: TaskData
    metric: str
    inputs: dict[str, Any]
    examples: dict[str, int]
    device: str

    def file(self, store: Path | str, token: str) -> Path:
        """Return the file of a store for the analysis at a token."""
        named = {"kind": self.kind, "models": [one.source.identity for one in self.models], "task": self.data.task.name}
        named |= {"data": self.data.fingerprint, "token": token, **self.inputs}
        text = json.dumps(named, sort_keys=True, separators=(",", ":"))
        return Path(store) / FOLDER / f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"

    def record(self, token: str, measured: Measured) -> dict[str, Any]:
        """Return the content of a file."""
        import torch

        *before, model = self.models
        named = torch.cuda.get_device_name() if self.device.startswith("cuda") else self.device
        return {
            "kind": self.kind,
            "model": model.describe(),
            "before": before[0].describe() if before else None,
            "task": self.data.task.name,
            "metric": self.metric,
            "token": token,
            **measured.entries(),
            "examples": self.examples,
            "seed": self.inputs["seed"],
            "environment": environment(named, torch.get_num_threads()),
            "max_length": self.inputs["max_length"],
        }


def read_tokens(token: str | None) -> tuple[str, ...]:
    """Return the tokens of a text such as `first,mean`, each once; none where nothing is given.

    Raises:
        UserError: if one of them is no token.
    """
    if token is None:
        return ()
    tokens = tuple(dict.fromkeys(part.strip() for part in token.split(",")))
    for each in tokens:
        check_token(each)
    return tokens


def check_store(store: Path | str) -> None:
    """Check that a store can be written, before anything is computed.

    Raises:
        OutputError: if it cannot.
    """
    there = next(at for at in (Path(store) / FOLDER).absolute().parents if at.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"the store '{store}' cannot be written; choose another --store")


def once(
    asked: Asked,
    tokens: Sequence[str],
    store: Path | str,
    *,
    force: bool,
    compute: Callable[[Sequence[str]], Sequence[Measured]],
) -> AnalysisResult:
    """Return the analyses that the store has, and make and write down the others in one pass.

    Args:
        tokens: one or more.
        force: make all of them.
        compute: measures at some tokens.
    """
    files = {token: asked.file(store, token) for token in tokens}
    stored = {token: _read(file, asked.kind) for token, file in files.items() if file.is_file() and not force}
    missing = [token for token in tokens if token not in stored]
    made = {}
    for token, measured in zip(missing, compute(missing) if missing else (), strict=True):
        made[token] = asked.record(token, measured)
        try:
            files[token].parent.mkdir(parents=True, exist_ok=True)
            replace_json(files[token], made[token])
        except OSError as error:
            raise OutputError(f"the store '{store}' cannot be written ({error.strerror}); choose another") from None
    notes = asked.data.notes
    first, *more = (AnalysisResult((stored | made)[token], files[token], token in stored, notes) for token in tokens)
    return replace(first, more=tuple(more))


def _read(file: Path, kind: str) -> dict[str, Any]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(stored["values"], list) or stored["kind"] != kind:
            raise ValueError("it is no analysis")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadError(f"'{file}' cannot be read ({error}); remove it, or add --force") from None
    return stored
