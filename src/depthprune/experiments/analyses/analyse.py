"""The paper's two analyses: probing classifiers for each layer, and the similarity of layers before and after
fine-tuning.

A probe predicts the task's label from what stands for the sentence after the embeddings (value 0) and after 1, 2, … L
layers: the sentence token, or the mean of all tokens. A similarity is the mean cosine of these representations in a
model before and after fine-tuning. Each value has its spread over the rows. An analysis is a file of the store, and is
computed once.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.arguments import checked
from depthprune.devices import resolve_device
from depthprune.errors import UserError
from depthprune.experiments.analyses.records import (
    AnalysisResult,
    Asked,
    Measured,
    check_store,
    once,
    read_tokens,
)
from depthprune.experiments.analyses.subject import check_alike, check_same_tokens, check_task, look_at
from depthprune.experiments.resampling import metric_name, resampled_scores
from depthprune.experiments.store.store import DEFAULT_STORE
from depthprune.optional import require
from depthprune.quiet import no_progress, quietly
from depthprune.sources import locate
from depthprune.specs import EvalSpec
from depthprune.tasks import TaskData, TaskOptions, load_task

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

LOADING = "loading the model"
TRAIN = "train"

Progress = Callable[[str, int, int], None]


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

    All rows' representations are kept: rows × (layers + 1) × hidden size × 4 bytes, for each token.

    Args:
        model: a local folder or a Hub id; fine-tuned or not.
        task: one of `depthprune list`. The probes are fitted on its training rows and scored, by its primary metric,
            on the split of that metric.
        options: where the task's data lies, and its columns.
        token: `first`, `last`, `mean` (of all real tokens), or several with commas, which take one pass; by default
            where the model has the representation of a sentence. The result of the first is returned, with the others
            in its `more`.
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
    tokens = read_tokens(token)
    check_store(store)
    if samples is not None and samples < 2:
        raise UserError(f"--samples {samples} is too few to learn from; give 2 or more")
    require("sklearn.linear_model", extra="metrics", purpose="a probe")
    analysed = look_at(locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code))
    device = resolve_device(device)
    data = check_task(load_task(task, options), probed=True)
    on_progress(LOADING, 0, 1)
    split = next(iter(data.task.eval_splits.values()))
    rows = _training_rows(data, samples, seed)
    examples = {"train": len(rows), "evaluation": len(data.splits[split])}
    inputs = {"max_length": max_length, "samples": len(rows), "seed": seed}
    asked = Asked("probe", [analysed], data, data.task.primary, inputs, examples, device)

    def compute(tokens: Sequence[str]) -> list[Measured]:
        from depthprune.experiments.analyses.representations import all_states, load_body
        from depthprune.tasks.data.encoding import encode

        used = dataclasses.replace(data, splits={TRAIN: rows, split: data.splits[split]})
        encoded = encode(used, analysed.tokenizer, max_length)
        body = load_body(analysed.source, analysed.tokenizer, data.task.num_outputs, device)
        states = {
            name: all_states(
                body,
                encoded[name],
                tokens=tokens,
                batch_size=batch_size,
                on_step=partial(on_progress, f"{name} rows"),
            )
            for name in (TRAIN, split)
        }
        labels = {name: encoded[name]["labels"][:] for name in states}
        found = []
        for n in range(len(tokens)):
            step = partial(_on_probe, on_progress, n * (analysed.depth + 1), len(tokens) * (analysed.depth + 1))
            train, evaluation = ((states[name][n], labels[name]) for name in (TRAIN, split))
            found.append(_probed(data.task, train, evaluation, step))
        return found

    return once(asked, tokens or (analysed.token,), store, force=force, compute=compute)


def _on_probe(on_progress: Progress, before: int, total: int, done: int) -> None:
    on_progress("probes", before + done, total)


def _probed(
    task: Any,
    train: "tuple[np.ndarray, list]",
    evaluation: "tuple[np.ndarray, list]",
    on_step: Callable[[int], None],
) -> Measured:
    """Fit and score a probe on every layer.

    Args:
        train, evaluation: states [N, L + 1, D] and labels.
    """
    import numpy as np

    from depthprune.evaluation.probing import probe_score

    (train_NLD, train_labels), (evaluation_NLD, labels) = train, evaluation
    values, answers = [], []
    for i in range(train_NLD.shape[1]):
        on_step(i)
        value, predicted = probe_score(task, train_NLD[:, i], train_labels, evaluation_NLD[:, i], labels)
        values.append(value)
        answers.append(np.asarray(predicted, dtype=np.float64))
    on_step(train_NLD.shape[1])
    known = metric_name(task.primary) and len(labels) > 1
    scores = resampled_scores(task.primary, np.asarray(labels, dtype=np.float64), answers) if known else None
    return Measured(values, np.cov(scores) if scores is not None else None)


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
    tokens = read_tokens(token)
    check_store(store)
    sources = [
        locate(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code) for model in (before, after)
    ]
    pair = [look_at(source) for source in sources]
    check_alike(*pair)
    device = resolve_device(device)
    data = check_task(load_task(task, options or TaskOptions(seed=seed)))
    on_progress(LOADING, 0, 1)
    split = next(iter(data.task.eval_splits.values()))
    examples = {"train": 0, "evaluation": len(data.splits[split])}
    asked = Asked("similarity", pair, data, "cosine", {"max_length": max_length, "seed": seed}, examples, device)

    def compute(tokens: Sequence[str]) -> list[Measured]:
        from depthprune.experiments.analyses.representations import load_body, token_states
        from depthprune.tasks.data.encoding import encode

        used = dataclasses.replace(data, splits={split: data.splits[split]})
        rows = [encode(used, one.tokenizer, max_length)[split] for one in pair]
        check_same_tokens(pair, rows, split)
        bodies = [load_body(one.source, one.tokenizer, data.task.num_outputs, device) for one in pair]
        passes = [
            token_states(body, some, tokens=tokens, batch_size=batch_size)
            for body, some in zip(bodies, rows, strict=True)
        ]
        return _turned(passes, lambda done: on_progress(f"{split} rows", done, len(rows[0])))

    return once(asked, tokens or (pair[0].token,), store, force=force, compute=compute)


def _turned(passes: Sequence[Any], on_step: Callable[[int], None]) -> list[Measured]:
    """Return the mean cosine of two models' states after every layer, for each token.

    Args:
        passes: of both models over the same rows in the same batches; see `token_states`.
    """
    import numpy as np
    import torch

    cosines, done = [], 0
    for (numbers, one_WBLD), (_, other_WBLD) in zip(*passes, strict=True):
        cosine_WBL = torch.cosine_similarity(one_WBLD.double(), other_WBLD.double(), dim=-1).clamp(-1, 1)
        cosines.append(cosine_WBL.numpy())
        done += len(numbers)
        on_step(done)
    found = []
    for cosine_NL in np.concatenate(cosines, axis=1):
        rows = len(cosine_NL)
        found.append(Measured(cosine_NL.mean(0), np.cov(cosine_NL.T) / rows if rows > 1 else None))
    return found


def _training_rows(data: TaskData, samples: int | None, seed: int) -> "Dataset":
    import numpy as np

    rows = data.splits[TRAIN]
    if samples is not None and samples < len(rows):
        chosen = np.random.default_rng(seed).choice(len(rows), samples, replace=False)
        rows = rows.select(np.sort(chosen))
    if data.task.labels and len(set(rows[data.task.label_column][:])) < 2:
        raise UserError(f"the {len(rows)} training rows are all of one class; give more with --samples")
    return rows
