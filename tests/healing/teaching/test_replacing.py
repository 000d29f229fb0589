"""Theseus' replacement, weights taken from the teacher, and adapters: what trains, and what it starts from."""

import pytest
import torch

from depthprune.errors import UserError
from depthprune.healing.adapters import adapters
from depthprune.healing.base import Cut, Schedule
from depthprune.healing.methods.freeze import FreezeOptions, freeze
from depthprune.healing.methods.theseus import ReplaceOptions
from depthprune.healing.teaching.replacing import replacement_loss
from depthprune.healing.teaching.students import inherit_weights
from depthprune.plan import LayerPlan
from tiny_models import ARCHITECTURES, build, inputs, tiny_model

DEPTH, DROPPED = 5, (0, 3)
CONSTANT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "dropout": 0.0, "attention_dropout": 0.0,
            "seq_classif_dropout": 0.0, "summary_last_dropout": 0.0}  # fmt: skip


def cut_student(kind: str, seed: int = 0):
    """A student, the layers that it has, and a teacher with other weights; none of them with dropout."""
    row = ARCHITECTURES[kind]
    known = row.make_config(DEPTH).to_dict()
    config = row.make_config(DEPTH, **{name: value for name, value in CONSTANT.items() if name in known})
    student, teacher = (build(row.classes["classification"], config, seed=number) for number in (seed, 7))
    cut = Cut(LayerPlan(DEPTH, DROPPED))
    cut.drop(student, DROPPED)
    return student, cut, teacher.requires_grad_(False)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlnet", "distilbert"])
def test_with_all_places_taken_the_student_runs_and_with_none_the_teacher(kind):
    student, cut, teacher = cut_student(kind)
    inherit_weights(student, teacher, cut)
    with torch.no_grad():  # beside the teacher's weights, something that only the student has
        next(cut.modules(student, (1,))[0].parameters()).add_(0.5)
    batch = {**inputs(pads_left=kind == "xlnet"), "labels": torch.tensor([0, 1])}
    with torch.no_grad():
        mine, theirs = student(**batch).loss.item(), teacher(**batch).loss.item()
    found = []
    for chance in (1.0, 1e-12):
        with replacement_loss(student, teacher, cut, ReplaceOptions(chance, 0), seed=0, schedule=Schedule()) as loss:
            found.append(loss(None, dict(batch)))
    assert found[0].item() == pytest.approx(mine, rel=1e-5) and found[1].item() == pytest.approx(theirs, rel=1e-5)
    assert abs(mine - theirs) > 1e-4
    found[0].backward()
    assert all(any(p.grad is not None for p in layer.parameters()) for layer in cut.modules(student, cut.present))
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_places_are_taken_more_and_more_often():
    student, cut, teacher = cut_student("bert")
    seen = []
    for layer in cut.modules(student, cut.present):
        layer.register_forward_hook(lambda *_: seen.append(step))
    batch = {**inputs(), "labels": torch.tensor([0, 1])}
    with replacement_loss(student, teacher, cut, ReplaceOptions(0.1, 0.03), seed=0, schedule=Schedule()) as loss:
        for step in range(40):  # noqa: B007
            loss(None, dict(batch)).backward()
    early, late = sum(at < 10 for at in seen), sum(at >= 30 for at in seen)
    assert 0 < early < 15 < late == 30


def test_the_teachers_weights_are_those_of_the_layers_that_stay():
    student, cut, teacher = cut_student("bert")
    student.bert.embeddings.requires_grad_(False)
    before = student.bert.embeddings.word_embeddings.weight.clone()
    inherit_weights(student, teacher, cut)
    for mine, layer in zip(student.bert.encoder.layer, (1, 2, 4), strict=True):
        theirs = teacher.bert.encoder.layer[layer].state_dict()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.state_dict().items())
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)
    assert torch.equal(student.bert.embeddings.word_embeddings.weight, before), "it was frozen"
    assert not torch.equal(before, teacher.bert.embeddings.word_embeddings.weight)
    with pytest.raises(
        UserError, match="the teacher has 4 layers and the full model 5, so its weights cannot be taken"
    ):
        inherit_weights(student, tiny_model("bert", "classification", 4), cut)
    with pytest.raises(UserError, match="the teacher, a DistilBertForSequenceClassification, has no 'bert"):
        inherit_weights(student, tiny_model("distilbert", "classification"), cut)


def test_adapters_train_linear_layers_and_the_head_and_are_gone_afterwards():
    student, _, _ = cut_student("bert")
    names, before = list(student.state_dict()), {k: v.clone() for k, v in student.state_dict().items()}
    student.bert.encoder.layer[0].requires_grad_(False)
    how = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "seed": 0}
    with adapters(student, targets=("query", "dense"), **how):
        learning = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
        optimizer = torch.optim.SGD([p for p in student.parameters() if p.requires_grad], 1.0)
        for _ in range(2):  # the first step leaves one of the two matrices at zero
            student(**inputs(), labels=torch.tensor([0, 1])).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert {name for name in learning if "lora_" not in name} == {"classifier.weight", "classifier.bias"}
    after = student.state_dict()
    assert list(after) == names
    changed = {name for name in names if not torch.equal(after[name], before[name])}
    assert "bert.encoder.layer.1.attention.self.query.weight" in changed and "classifier.bias" in changed
    assert not any(part in name for name in changed for part in ("LayerNorm", "embeddings", "layer.0.", "key", "value"))
    with pytest.raises(
        UserError, match="the model has no linear layer 'q_proj' for LoRA; it has dense, key, query, value"
    ):
        adapters(student, targets=("query", "q_proj"), **how).__enter__()
    student.requires_grad_(False)
    with pytest.raises(UserError, match="every linear layer that LoRA would change is frozen"):
        adapters(student, targets=(), **how).__enter__()


def test_all_but_the_last_layers_and_the_head_can_be_frozen():
    student, cut, _ = cut_student("bert")
    freeze(student, None, FreezeOptions(all_but_last=2), schedule=Schedule(), seed=0, cut=cut)
    learning = {name.rpartition("layer.")[2].partition(".")[0] if "layer." in name else name.partition(".")[0]
                for name, parameter in student.named_parameters() if parameter.requires_grad}  # fmt: skip
    assert learning == {"1", "2", "bert", "classifier"}
    assert not any(p.requires_grad for p in student.bert.embeddings.parameters())
