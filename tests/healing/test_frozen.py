"""Frozen layers that have no dropout are computed once, and training comes to the same weights."""

import shutil
from contextlib import contextmanager

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, MPNetConfig, MPNetForSequenceClassification

from depthprune.healing import frozen, kept_states
from depthprune.healing.base import Cut, Healed, TrainingData
from depthprune.healing.recipe import heal, read_recipe, resolve
from depthprune.plan import LayerPlan
from depthprune.tasks import Task, TaskData
from depthprune.tasks.data.encoding import encode
from tiny_models import ARCHITECTURES, PAD, SIZES, build, tiny_tokenizer

TASK = Task("first-word", ("text",), "label", ("ba", "be"), ("accuracy",))
DEPTH = 4
KINDS = ("bert", "roberta", "distilbert", "xlnet", "mpnet", "llama")


def model_of(kind: str):
    if kind == "mpnet":
        config = MPNetConfig(**{**SIZES, "num_hidden_layers": DEPTH, "pad_token_id": 1})
        return build(MPNetForSequenceClassification, config)
    if kind == "llama":
        return build(LlamaForSequenceClassification, LlamaConfig(**{**SIZES, "num_hidden_layers": DEPTH}))
    row = ARCHITECTURES[kind]
    return build(row.classes["classification"], row.make_config(DEPTH))


def data_of(kind: str = "bert", count: int = 24) -> TrainingData:
    from datasets import Dataset

    tokenizer = tiny_tokenizer(pads_left=kind == "xlnet")
    texts = [("ba " if i % 2 else "be ") + " ".join(["da", "fu", "ki", "ra", "so"][: i % 5]) for i in range(count)]
    rows = Dataset.from_dict({"text": texts, "label": [1 - i % 2 for i in range(count)]})
    return TrainingData(encode(TaskData(TASK, {"train": rows}), tokenizer, 16)["train"], tokenizer)


class Full:
    """A teacher with other weights than the student's."""

    identity, pooling = "sha256:full", ("mean",)

    def __init__(self, kind: str):
        self._kind = kind

    def model(self):
        model = model_of(self._kind)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
        return model.requires_grad_(False)


def healed(kind: str, steps: str, **schedule) -> tuple[Healed, list[str]]:
    """Heal a model without layer 2, and return the stages that its progress tells."""
    data, stages = data_of(kind), []
    heard = TrainingData(data.rows, data.tokenizer, lambda stage, done, total: stages.append(stage))
    entries = {"num_epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "precision": "float32", **schedule}
    recipe = resolve(read_recipe({**entries, "steps": steps}))
    model = model_of(kind)
    found = heal(model, heard, recipe, cut=Cut(LayerPlan(DEPTH, (2,))), seed=0, teacher=Full(kind))
    return found, stages


@contextmanager
def nothing_kept():
    """Let no states be small enough to be kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen, "LARGEST", -1)
        yield


def compare(kind: str, steps: str, **schedule) -> None:
    once, stages = healed(kind, steps, **schedule)
    with nothing_kept():
        each, without = healed(kind, steps, **schedule)
    assert once.trainings[-1].frozen.startswith("computed once; the states of 2 layers take"), once.trainings[-1].frozen
    assert any(once.trainings[-1].frozen in stage for stage in stages) and not any("frozen" in s for s in without)
    assert each.trainings[-1].frozen.startswith("computed in each epoch: their states would take")
    start, mine, theirs = model_of(kind).state_dict(), once.model.state_dict(), each.model.state_dict()
    for name, tensor in mine.items():
        if not name.endswith(("key.bias", "k_lin.bias", "attn.k.bias")):  # Adam makes steps of the rounding of theirs
            assert torch.allclose(tensor, theirs[name], atol=2e-5), name
    assert max((tensor - start[name]).abs().max() for name, tensor in mine.items() if name in start) > 1e-3
    assert once.trainings[-1].loss == pytest.approx(each.trainings[-1].loss, rel=1e-5)


FREEZE = "freeze(layers=0-1, embeddings=true, dropout=false)+"


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_a_training_that_computes_frozen_layers_in_each_epoch(kind):
    compare(kind, FREEZE + "finetune")


@pytest.mark.parametrize(
    "steps, schedule",
    [
        ("freeze(all_but_last=1, dropout=false)+finetune", {}),
        (FREEZE + "finetune", {"similar_lengths": True, "accumulation": 2}),
        (FREEZE + "finetune", {"precision": "bfloat16"}),
        (FREEZE + "distill(alpha=0.7)", {}),
        (FREEZE + "distill(alpha=1, beta=10, tokens=all)", {"similar_lengths": True}),
        (FREEZE + "embedding", {}),
        (FREEZE + "lora", {}),
        ("drop+" + FREEZE + "finetune", {}),
    ],
)
def test_it_is_so_with_every_method_that_trains_all_rows(steps, schedule):
    compare("bert", steps, **schedule)


def test_nothing_random_is_computed_once_without_being_asked_for():
    found, _ = healed("llama", "freeze(layers=0-1, embeddings=true)+finetune")  # has no dropout
    assert found.trainings[-1].frozen.startswith("computed once")
    assert any(note.startswith("the frozen layers' states: computed once") for note in found.notes)


@pytest.mark.parametrize(
    "steps, schedule, why",
    [
        (FREEZE + "finetune", {"num_epochs": 1}, None),
        ("freeze(layers=0-1, embeddings=true)+finetune", {}, None),  # has dropout, as ever
        ("freeze(layers=0-1, dropout=false)+finetune", {}, "something before them learns, such as the embeddings"),
        ("freeze(layers=1, embeddings=true, dropout=false)+finetune", {}, "the first layer is not frozen"),
        (FREEZE + "distill(gamma=1)", {}, "the method needs all layers to run"),
        (FREEZE + "gradual", {}, None),
    ],
)
def test_what_learns_or_is_random_is_computed_in_each_epoch(steps, schedule, why):
    report = healed("bert", steps, **schedule)[0].trainings[-1]
    assert report.frozen == (f"computed in each epoch: {why}" if why else None)


def test_what_is_frozen_without_dropout_runs_in_evaluation_mode_and_the_rest_in_training_mode():
    from depthprune.healing.without_dropout import run_with_dropout, run_without_dropout, without_dropout

    model, seen = model_of("xlnet"), {}
    layers = list(model.transformer.layer)
    run_without_dropout(model, layers[:1], embeddings=True)
    parts = {"words": model.transformer.word_embedding, "0": layers[0].rel_attn, "1": layers[1].rel_attn}
    for name, part in parts.items():
        part.register_forward_pre_hook(lambda module, args, name=name: seen.update({name: module.training}))
    with without_dropout(model):
        model.train()(**tiny_tokenizer().pad({"input_ids": [[2, 5, 3]]}, return_tensors="pt"))
    assert seen == {"words": False, "0": False, "1": True} and model.transformer.dropout.training
    run_with_dropout(model)
    with without_dropout(model):
        model.train()(**tiny_tokenizer().pad({"input_ids": [[2, 5, 3]]}, return_tensors="pt"))
    assert set(seen.values()) == {True}


def test_a_full_disk_is_no_reason_to_stop(monkeypatch):
    monkeypatch.setattr(kept_states, "SPARE", shutil.disk_usage("/").total * 1000)
    report = healed("bert", FREEZE + "finetune")[0].trainings[-1]
    assert "computed in each epoch: their states take" in report.frozen and "has 0 to spare" in report.frozen


def test_a_model_whose_states_depend_on_padding_is_computed_in_each_epoch():
    from transformers import GPT2Config, GPT2ForSequenceClassification

    # Padded on the left, GPT-2 counts positions from the padding on.
    config = GPT2Config(
        vocab_size=60, n_positions=40, n_embd=16, n_head=2, n_layer=DEPTH, pad_token_id=PAD,
        embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    for left, expected in ((True, "computed in each epoch: the states of a row depend on"), (False, "computed once")):
        data = data_of()
        tokenizer = tiny_tokenizer(pads_left=left)
        recipe = resolve(read_recipe({"num_epochs": 2, "precision": "float32", "steps": FREEZE + "finetune"}))
        model = build(GPT2ForSequenceClassification, config)
        found = heal(model, TrainingData(data.rows, tokenizer), recipe, cut=Cut(LayerPlan(DEPTH, (2,))), seed=0)
        assert found.trainings[-1].frozen.startswith(expected)
