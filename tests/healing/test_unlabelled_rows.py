"""Rows without labels in a training: the teacher counts for them, and the labels for the others alone."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from depthprune.healing.base import Cut, TrainingData, registry
from depthprune.healing.methods.distill import DistillOptions
from depthprune.healing.recipe import heal, parse_recipe, resolve
from depthprune.healing.selection import split_rows
from depthprune.healing.teaching.losses import labels_loss, logits_loss
from depthprune.healing.teaching.outputs import Taught, Wanted
from depthprune.healing.teaching.students import distillation_loss
from depthprune.plan import LayerPlan
from depthprune.specs import HealSpec
from tiny_healing import Full, data
from tiny_models import ARCHITECTURES, build, tiny_model

BASE = HealSpec(num_epochs=2, batch_size=8, learning_rate=1e-3, precision="float32")
TAUGHT = [name for name, part in registry.items() if part.teacher_loss]


def weights(recipe: str, rows: TrainingData, **more) -> dict[str, torch.Tensor]:
    planned = resolve(dataclasses.replace(BASE, steps=parse_recipe(recipe), **more))
    model = tiny_model("bert", "classification", depth=3)
    found = heal(model, rows, planned, cut=Cut(LayerPlan(3, (0, 2))), seed=1, teacher=Full())
    return found.model.state_dict()


def same(one, other) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_of_labels_is_their_mean_times_the_share_of_labelled_rows():
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 3, requires_grad=True), torch.tensor([2, 0, 1, -100, -100])
    mine = torch.tensor([True, True, True, False, False])
    by_hand = -(logits.log_softmax(-1)[[0, 1, 2], [2, 0, 1]].sum()) / 5
    found = labels_loss(logits, labels, mine)
    assert torch.allclose(found, by_hand) and torch.allclose(found, F.cross_entropy(logits[:3], labels[:3]) * 3 / 5)
    numbers = torch.tensor([0.5, 1, float("nan"), 2, float("nan")])
    squared = ((logits[[0, 1, 3], 0] - numbers[[0, 1, 3]]) ** 2).sum() / 5
    assert torch.allclose(labels_loss(logits[:, :1], numbers, ~numbers.isnan()), squared)
    one, other, both = (labels_loss(logits[at], labels[at], mine[at]) for at in ([0, 3], [1, 4], [0, 3, 1, 4]))
    assert torch.allclose((one + other) / 2, both), "parts of a batch add up"
    nothing = labels_loss(logits, labels, ~mine & mine)
    nothing.backward()
    assert nothing == 0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("num_labels", [1, 2])
def test_the_loss_of_a_mixed_batch_has_the_labels_of_its_labelled_rows_and_the_teacher_of_all(num_labels):
    row = ARCHITECTURES["bert"]
    model = build(row.classes["classification"], row.make_config(3, num_labels=num_labels)).eval()
    rows = data(4, unlabelled=4).rows.remove_columns("length")
    batch = dict(data(1).tokenizer.pad(rows.to_list(), return_tensors="pt")) | {"row": torch.arange(8)}
    if num_labels == 1:
        batch["labels"] = torch.tensor([0.5, 1.5, 0, 2, *[float("nan")] * 4])
    aims, options = torch.randn(8, num_labels), DistillOptions(alpha=0.7, temperature=2)
    with torch.no_grad():
        inputs = {name: values for name, values in batch.items() if name not in ("row", "labels")}
        logits = model(**inputs).logits
        own = model(**{name: values[:4] for name, values in inputs.items()}, labels=batch["labels"][:4]).loss
        said = lambda numbers, _: Taught(aims[numbers], None)  # noqa: E731
        shuffled = {name: values[torch.tensor([6, 0, 3, 5, 1, 7, 2, 4])] for name, values in batch.items()}
        found = distillation_loss(said, Wanted(), (), options, num_labelled=4)(model, shuffled)
        whole = distillation_loss(said, Wanted(), (), options)(model, {k: v[:4] for k, v in batch.items()})
    assert found.item() == pytest.approx((0.3 * own * 4 / 8 + 0.7 * logits_loss(logits, aims, 2)).item(), rel=1e-5)
    assert whole.item() == pytest.approx((0.3 * own + 0.7 * logits_loss(logits[:4], aims[:4], 2)).item(), rel=1e-5)


@pytest.mark.parametrize("name", TAUGHT)
def test_a_method_with_a_teachers_loss_learns_from_unlabelled_rows_and_not_from_what_stands_for_their_labels(name):
    one, other = (weights(name, data(unlabelled=16, placeholder=label)) for label in (-100, 1))
    assert same(one, other) and not same(one, weights(name, data()))


def test_all_other_methods_get_the_labelled_rows_alone():
    assert TAUGHT == ["distill", "embedding"]
    for recipe in "finetune", "gradual", "linear-patch", "layerdrop", "theseus":
        assert same(weights(recipe, data(unlabelled=16)), weights(recipe, data())), recipe


def test_frozen_layers_that_are_computed_once_are_so_for_unlabelled_rows_too():
    recipe = "drop+freeze(layers=0, embeddings=true, dropout=false)+distill(beta=1)"
    model = tiny_model("bert", "classification", depth=3)
    planned = resolve(dataclasses.replace(BASE, steps=parse_recipe(recipe)))
    rows = data(unlabelled=16)
    found = heal(model, rows, planned, cut=Cut(LayerPlan(3, (2,))), seed=1, teacher=Full())
    assert found.trainings[0].frozen is not None and "computed once" in found.trainings[0].frozen
    assert found.trainings[0].steps == 2 * (32 + 16) / 8 and torch.isfinite(torch.tensor(found.trainings[0].loss))


def test_rows_are_held_out_of_the_labelled_ones_alone():
    rows = data(unlabelled=16).rows
    trained, held = split_rows(rows, 0.25, 3, 16)
    assert len(held) == 8 and -100 not in held["labels"][:] and trained["labels"][:].count(-100) == 16
    assert trained["labels"][-16:] == [-100] * 16 and len(trained) == 40
    before = [part["input_ids"][:] for part in split_rows(data().rows, 0.25, 3)]
    assert [trained["input_ids"][:24], held["input_ids"][:]] == before, "the same as without"
    assert not same(*(weights("distill", data(unlabelled=16), validation_fraction=part) for part in (0, 0.25)))
