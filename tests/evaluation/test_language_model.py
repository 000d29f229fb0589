"""Perplexity of a causal language model: against a plain loop, and from the command to the record."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from depthprune.errors import LoadError
from depthprune.evaluation.base import evaluation_of, measure
from depthprune.experiments.comparison import compare
from depthprune.experiments.evaluate import evaluate
from depthprune.experiments.resampling import lost_interval
from depthprune.experiments.store.predictions import read_predictions
from depthprune.loading import load_tokenizer
from depthprune.sources import locate
from depthprune.specs import HealSpec
from depthprune.tasks import TaskOptions, load_task
from tiny_models import tiny_checkpoint, tiny_decoder, words

TASK = "language-modelling"


@pytest.fixture(scope="module")
def decoder(tmp_path_factory) -> str:
    return str(tiny_decoder(tmp_path_factory.mktemp("models") / "llama", num_layers=3))


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    """Twelve hundred words in lines of twelve."""
    file = tmp_path_factory.mktemp("data") / "lines.txt"
    file.write_text(words(1200))
    return str(file)


def test_it_is_the_perplexity_of_a_plain_loop_over_blocks(decoder, text):
    data = load_task(TASK, TaskOptions(text, scoring_only=True))
    source, kind = locate(decoder), evaluation_of(data.task)
    model, fresh = kind.load(source, data.task)
    tokenizer = load_tokenizer(source)
    ids = tokenizer(words(1200))["input_ids"]
    length, losses, heard = 16, [], {}
    for at in range(0, len(ids) // length * length, length):
        block = torch.tensor([ids[at : at + length]])
        with torch.no_grad():
            logits = model(input_ids=block).logits
        losses += functional.cross_entropy(logits[0, :-1], block[0, 1:], reduction="none").tolist()

    encoded = kind.encode(data, tokenizer, length)
    metrics = measure(
        *(model, tokenizer, data.task, encoded),
        batch_size=3,
        on_rows=lambda prefix, tokens, losses: heard.update({prefix: (tokens, losses)}),
    )

    assert fresh == [] and len(losses) == 75 * 15
    found = metrics["perplexity"]
    assert found.value == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    assert (found.examples, found.unit, found.better) == (75, "", "lower")
    blocks = [sum(losses[at : at + 15]) for at in range(0, len(losses), 15)]
    assert heard[""] == ([15] * 75, pytest.approx(blocks, rel=1e-4))
    spread = torch.tensor(blocks).std().item() / 15 / 75**0.5
    assert found.standard_error == pytest.approx(found.value * spread, rel=1e-4)


def test_a_block_begins_with_the_token_that_the_tokenizer_begins_texts_with(decoder, text, tmp_path):
    from tokenizers import processors

    tokenizer = load_tokenizer(locate(decoder))
    backend: Any = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    tokenizer.bos_token = "[CLS]"
    data = load_task(TASK, TaskOptions(text, scoring_only=True))
    rows = evaluation_of(data.task).encode(data, tokenizer, 16)["train"]
    assert {ids[0] for ids in rows["input_ids"]} == {2} and len(rows) == 1200 // 15
    assert [token for ids in rows["input_ids"] for token in ids[1:]] == tokenizer(words(1200))["input_ids"][1:1201]


def test_the_end_of_a_file_is_held_out_and_a_folder_has_splits(text, tmp_path):
    one = load_task(TASK, TaskOptions(text))
    assert one.task.primary == "perplexity" and one.task.eval_splits == {"": "held-out"}
    lines = [*one.splits["train"]["text"], *one.splits["held-out"]["text"]]
    assert "\n".join(lines) + "\n" == words(1200) and one.notes == ("scored on the last 10 lines of 'train' (10%)",)
    for name, count in ("train", 300), ("test", 100):
        (tmp_path / f"{name}.txt").write_text(words(count))
    folder = load_task(TASK, TaskOptions(str(tmp_path)))
    assert folder.task.eval_splits == {"": "test"} and set(folder.splits) == {"train", "test"}
    assert set(load_task(TASK, TaskOptions(str(tmp_path), scoring_only=True)).splits) == {"test"}


def test_healing_on_text_lowers_the_perplexity(decoder, text, tmp_path):
    heal = HealSpec(num_epochs=2, learning_rate=5e-3, batch_size=4, precision="float32")
    options = TaskOptions(text)
    given, healed = (
        compare(
            *(decoder, TASK),
            layers=[1],
            options=options,
            heal=each,
            max_length=16,
            store=tmp_path / "runs",
            device="cpu",
            save=each is heal,
            profile=False,
        )
        for each in (HealSpec(num_epochs=0), heal)
    )
    assert healed.pruned.outcome["heal"]["steps"] == 2 * math.ceil(67 / 4)
    assert healed.pruned.score < 0.9 * given.pruned.score and given.pruned.measured.lost(healed.pruned.measured) > 0
    assert healed.pruned.model is not None
    scored = evaluate(healed.pruned.model, TASK, options=options, max_length=16, device="cpu")
    assert scored.score == pytest.approx(healed.pruned.score, rel=0.5), "on all lines, and not on those held out"
    one, other = (tmp_path / "runs" / run.digest for run in (given.full, given.pruned))
    (split,) = (read_predictions(one) or {}).values()
    assert set(split["expected"]) == {15}
    interval = lost_interval(one, other, "perplexity")
    assert interval is not None and interval[0] < given.pruned.score - given.full.score < interval[1]


@pytest.mark.parametrize(
    "head, message",
    [("mlm", "sees the tokens that come after"), ("base", "has no trained head for language modelling")],
)
def test_a_model_that_is_no_causal_language_model_is_refused(head, message, text, tmp_path):
    source = str(tiny_checkpoint(tmp_path / "bert", head=head, num_layers=2))
    with pytest.raises(LoadError, match=message):
        evaluate(source, TASK, options=TaskOptions(text), max_length=16, device="cpu")


@pytest.mark.parametrize(
    "options, message",
    [
        (TaskOptions(), "--task language-modelling needs --dataset"),
        (TaskOptions("x.txt", ("a", "b")), "running text comes from one column"),
        (TaskOptions("x.txt", label_column="a"), "has no labels"),
    ],
)
def test_what_running_text_cannot_have_is_refused(options, message):
    with pytest.raises(LoadError, match=message):
        load_task(TASK, options)


def test_a_real_language_model_loses_what_a_search_says_it_loses_least(shared_data, tmp_path):
    model = str(shared_data / "models" / "stories260K")
    lines = (shared_data / "text" / "wikitext2" / "valid.txt").read_text().splitlines()[:250]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    found = [
        compare(
            *(model, TASK),
            layers=[layer],
            options=TaskOptions(str(tmp_path / "lines.txt")),
            heal=HealSpec(num_epochs=0),
            store=tmp_path / "runs",
            device="cpu",
            save=False,
            profile=False,
        )
        for layer in (0, 3)
    ]
    first, fourth = (each.pruned.measured for each in found)
    full = found[0].full.measured
    assert full.value < fourth.value < first.value, "the first layer is the one that a Llama cannot do without"
    assert 1 > (fourth.retained(full) or 0) > (first.retained(full) or 0)
