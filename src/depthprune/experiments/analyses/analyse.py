"""The paper's two analyses: probing classifiers for each layer, and the similarity of layers before and after
fine-tuning.

A probe predicts the task's label from the sentence token after the embeddings (value 0) and after 1, 2, … L layers. A
similarity is the mean cosine of that token's representations in a model before and after fine-tuning, at the same
positions. An analysis is a file, `STORE/analyses/<kind>-<digest of its inputs>.json`, and is computed once.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.arguments import checked
from depthprune.devices import resolve_device
from depthprune.errors import LoadError, OutputError, UserError
from depthprune.experiments.analyses.subject import Analysed, check_alike, check_same_tokens, check_task, look_at
from depthprune.experiments.environment import environment
from depthprune.experiments.store.store import DEFAULT_STORE
from depthprune.optional import require
from depthprune.quiet import no_progress, quietly
from depthprune.result_file import replace_json
from depthprune.sources import locate
from depthprune.specs import EvalSpec
from depthprune.tasks import TaskData, TaskOptions, load_task

if TYPE_CHECKING:
    from datasets import Dataset

FOLDER = "analyses"  # of a store
LOADING = "loading the model"
TOKENS = ("first", "last")
TRAIN = "train"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class AnalysisResult:
    """A finished analysis.

    Args:
        record: the content of its file.
        file: in the store.
        stored: whether the file existed before.
        notes: what the user should know about how the data was read.
    """

    record: dict[str, Any]
    file: Path
    stored: bool
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[float, ...]:
        """After the embeddings, and after 1, 2, … layers."""
        return tuple(self.record["values"])


@checked("probe")
@quietly()
def probe(
    model: str | Path,
    task: str,
    *,
    options: TaskOptions | None = None,
    token: str | None = None,
    samples: int | None = None,
    max_length: int = EvalSpec.max_length,
    seed: int = 42,
    batch_size: int = 32,
    store: Path | str = DEFAULT_STORE,
    device: str = "auto",
    force: bool = False,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: Progress = no_progress,
) -> AnalysisResult:
    """Fit a linear probe on every layer of a model and score it. This is `depthprune.probe`.

    All rows' representations are kept: rows × (layers + 1) × hidden size × 4 bytes.

    Args:
        model: a local folder or a Hub id; fine-tuned or not.
        task: one of `depthprune list`. The probes are fitted on its training rows and scored, by its primary metric,
            on the split of that metric.
        options: where the task's data lies, and its columns.
        token: `first` or `last`; where the model has the representation of a sentence by default.
        samples: how many training rows, chosen by `seed`; all by default.
        max_length: tokens to which an example is cut.
        seed: of the choice of training rows.
        batch_size: sequences per forward pass.
        store: the folder of runs.
        force: repeat what the store has.
        on_progress: called with (name of the stage, steps done, steps in all).

    Raises:
        UserError: for anything that the user can fix; the message is one line.
    """
    _check(token, store)
    if samples is not None and samples < 2:
        raise UserError(f"--samples {samples} is too few to learn from; give 2 or more")
    require("sklearn.linear_model", extra="metrics", purpose="a probe")
    analysed = look_at(locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code))
    device = resolve_device(device)
    data = check_task(load_task(task, options), probed=True)
    on_progress(LOADING, 0, 1)
    token = token or analysed.token
    split = next(iter(data.task.eval_splits.values()))
    rows = _training_rows(data, samples, seed)
    inputs = {"max_length": max_length, "samples": len(rows), "seed": seed, "token": token}

    def compute() -> dict[str, Any]:
        from depthprune.evaluation.probing import probe_score
        from depthprune.experiments.analyses.representations import all_states, load_body
        from depthprune.tasks.data.encoding import encode

        used = dataclasses.replace(data, splits={TRAIN: rows, split: data.splits[split]})
        encoded = encode(used, analysed.tokenizer, max_length)
        body = load_body(analysed.source, analysed.tokenizer, data.task.num_outputs, device)
        train_NLD, evaluation_NLD = (
            all_states(
                body,
                encoded[name],
                token=token,
                batch_size=batch_size,
                on_step=partial(on_progress, f"{name} rows"),
            )
            for name in (TRAIN, split)
        )
        values = []
        for i in range(analysed.depth + 1):
            on_progress("probes", i, analysed.depth + 1)
            labels = encoded[TRAIN]["labels"][:], encoded[split]["labels"][:]
            values.append(probe_score(data.task, train_NLD[:, i], labels[0], evaluation_NLD[:, i], labels[1]))
        on_progress("probes", analysed.depth + 1, analysed.depth + 1)
        examples = {"train": len(rows), "evaluation": len(data.splits[split])}
        return _record("probe", analysed, None, data, data.task.primary, token, values, examples, seed, device)

    return _once("probe", [analysed], data, inputs, store, force, compute)


@checked("similarity")
@quietly()
def similarity(
    before: str | Path,
    after: str | Path,
    task: str,
    *,
    options: TaskOptions | None = None,
    token: str | None = None,
    max_length: int = EvalSpec.max_length,
    seed: int = 42,
    batch_size: int = 32,
    store: Path | str = DEFAULT_STORE,
    device: str = "auto",
    force: bool = False,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    on_progress: Progress = no_progress,
) -> AnalysisResult:
    """Compare a model before and after fine-tuning, layer by layer. This is `depthprune.similarity`.

    Args:
        before: the pre-trained model, a local folder or a Hub id.
        after: the same model fine-tuned, with all of its layers.
        task: one of `depthprune list`; the mean is over the rows that its primary metric is scored on.
        options, token, max_length, seed, batch_size, store, force, on_progress: see `probe`.

    Raises:
        UserError: for anything that the user can fix; the message is one line.
    """
    _check(token, store)
    sources = [
        locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code) for model in (before, after)
    ]
    pair = [look_at(source) for source in sources]
    check_alike(*pair)
    device = resolve_device(device)
    data = check_task(load_task(task, options or TaskOptions(seed=seed)))
    on_progress(LOADING, 0, 1)
    token = token or pair[0].token
    split = next(iter(data.task.eval_splits.values()))
    inputs = {"max_length": max_length, "seed": seed, "token": token}

    def compute() -> dict[str, Any]:
        from depthprune.experiments.analyses.representations import load_body, token_states
        from depthprune.tasks.data.encoding import encode

        used = dataclasses.replace(data, splits={split: data.splits[split]})
        rows = [encode(used, one.tokenizer, max_length)[split] for one in pair]
        check_same_tokens(pair, rows, split)
        bodies = [load_body(one.source, one.tokenizer, data.task.num_outputs, device) for one in pair]
        passes = [
            token_states(body, some, token=token, batch_size=batch_size)
            for body, some in zip(bodies, rows, strict=True)
        ]
        total, done = 0.0, 0
        for (numbers, one_BLD), (_, other_BLD) in zip(*passes, strict=True):
            total = total + _cosine(one_BLD, other_BLD).sum(0)
            done += len(numbers)
            on_progress(f"{split} rows", done, len(rows[0]))
        values = (total / done).tolist()  # pyright: ignore[reportAttributeAccessIssue]
        examples = {"train": 0, "evaluation": done}
        return _record("similarity", pair[1], pair[0], data, "cosine", token, values, examples, seed, device)

    return _once("similarity", pair, data, inputs, store, force, compute)


def _check(token: str | None, store: Path | str) -> None:
    """Refuse what could only fail at the end."""
    if token is not None and token not in TOKENS:
        raise UserError(f"there is no token '{token}'; it is 'first' or 'last'")
    there = next(at for at in (Path(store) / FOLDER).absolute().parents if at.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"the store '{store}' cannot be written; choose another --store")


def _training_rows(data: TaskData, samples: int | None, seed: int) -> "Dataset":
    import numpy as np

    rows = data.splits[TRAIN]
    if samples is not None and samples < len(rows):
        chosen = np.random.default_rng(seed).choice(len(rows), samples, replace=False)
        rows = rows.select(np.sort(chosen))
    if data.task.labels and len(set(rows[data.task.label_column][:])) < 2:
        raise UserError(f"the {len(rows)} training rows are all of one class; give more with --samples")
    return rows


def _cosine(one_BLD: Any, other_BLD: Any) -> Any:
    import torch

    return torch.cosine_similarity(one_BLD.double(), other_BLD.double(), dim=-1).clamp(-1, 1)


def _record(
    kind: str,
    model: Analysed,
    before: Analysed | None,
    data: TaskData,
    metric: str,
    token: str,
    values: list[float],
    examples: dict[str, int],
    seed: int,
    device: str,
) -> dict[str, Any]:
    import torch

    named = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return {
        "kind": kind,
        "model": model.describe(),
        "before": before.describe() if before is not None else None,
        "task": data.task.name,
        "metric": metric,
        "token": token,
        "values": values,
        "examples": examples,
        "seed": seed,
        "environment": environment(named, torch.get_num_threads()),
    }


def _once(
    kind: str,
    models: list[Analysed],
    data: TaskData,
    inputs: dict[str, Any],
    store: Path | str,
    force: bool,
    compute: Callable[[], dict[str, Any]],
) -> AnalysisResult:
    """Return the analysis that the store has, or do it and write it down."""
    named = {"kind": kind, "models": [one.source.identity for one in models], "data": data.fingerprint, **inputs}
    named |= {"task": data.task.name}
    text = json.dumps(named, sort_keys=True, separators=(",", ":"))
    file = Path(store) / FOLDER / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    if file.is_file() and not force:
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(stored["values"], list) or stored["kind"] != kind:
                raise ValueError("it is no analysis")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LoadError(f"'{file}' cannot be read ({error}); remove it, or add --force") from None
        return AnalysisResult(stored, file, True, data.notes)
    record = {**compute(), "max_length": inputs["max_length"]}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_json(file, record)
    except OSError as error:
        raise OutputError(f"the store '{store}' cannot be written ({error.strerror}); choose another") from None
    return AnalysisResult(record, file, False, data.notes)
