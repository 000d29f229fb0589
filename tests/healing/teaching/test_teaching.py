"""Distillation: states are matched by original index, and what cannot fit is refused."""

import dataclasses
import shutil

import pytest
import torch
import torch.nn.functional as F
from transformers import MPNetConfig, MPNetForSequenceClassification

from depthprune.errors import UserError
from depthprune.healing import kept_states
from depthprune.healing.base import Cut, Schedule, TrainingData
from depthprune.healing.methods.distill import DistillOptions, distill
from depthprune.healing.teaching import outputs as teaching
from depthprune.healing.teaching.mapping import matched_states
from depthprune.healing.teaching.outputs import Wanted, outputs_of
from depthprune.healing.teaching.students import check_pair, distillation_loss, showing_attention
from depthprune.plan import LayerPlan
from depthprune.surgery import drop_layers
from depthprune.tasks import Task, TaskData
from depthprune.tasks.data.encoding import encode
from tiny_models import ARCHITECTURES, CLS, SIZES, build, tiny_model, tiny_tokenizer

DEPTH = 5
LABELLED = Task("first-word", ("text",), "label", ("ba", "be"), ("accuracy",))
KINDS = ("bert", "roberta", "mpnet", "xlnet", "distilbert")


def model_of(kind: str, **more):
    if kind == "mpnet":
        config = MPNetConfig(**{**SIZES, "num_hidden_layers": DEPTH, "pad_token_id": 1, **more})
        return build(MPNetForSequenceClassification, config)
    row = ARCHITECTURES[kind]
    return build(row.classes["classification"], row.make_config(DEPTH, **more))


def rows_of(kind: str = "bert", count: int = 12) -> TrainingData:
    from datasets import Dataset

    tokenizer = tiny_tokenizer(pads_left=kind == "xlnet")
    texts = ["ba " + "da fu ki ra so " * (i % 3) + ("be" if i % 2 else "") for i in range(count)]
    rows = Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(count)]})
    return TrainingData(encode(TaskData(LABELLED, {"train": rows}), tokenizer, 16)["train"], tokenizer)


def padded(data: TrainingData, numbers: list[int]):
    rows = data.rows.select(numbers).remove_columns("length")
    batch = dict(data.tokenizer.pad(rows.to_list(), return_tensors="pt"))
    return batch | {"row": torch.tensor(numbers)}


def loss_of(student, teacher, options: DistillOptions, pairs, batch) -> float:
    pooled = ("mean",) if options.tokens == "pooled" else ()
    wanted = Wanted(tuple(aim for _, aim in pairs), options.tokens == "all", CLS, pooled=pooled)
    loss = distillation_loss(
        lambda _, rows: teaching.ask(teacher, rows, wanted), wanted, [s for s, _ in pairs], options
    )
    with torch.no_grad():
        return loss(student, dict(batch)).item()


@pytest.mark.parametrize("tokens", ["sentence", "pooled", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(kind, tokens):
    data, model = rows_of(kind), model_of(kind)
    options = DistillOptions(alpha=1, beta=1, tokens=tokens)
    pairs, batch = matched_states(range(DEPTH), DEPTH), padded(data, [3, 0, 4])
    assert loss_of(model, model, options, pairs, batch) == pytest.approx(0, abs=1e-6)
    other = model_of(kind)
    drop_layers(other, LayerPlan(DEPTH, (1, 2)))
    assert loss_of(other, model, options, matched_states((0, 3, 4), DEPTH), batch) > 1e-3


def test_a_scattered_cut_is_matched_by_original_index():
    data, teacher, student = rows_of(), model_of("bert"), model_of("bert")
    drop_layers(student, LayerPlan(DEPTH, (1, 2)))
    with torch.no_grad():  # what layer 3 is given is not what layer 0 puts out any more, and layer 0 is to mend it
        student.bert.encoder.layer[0].output.LayerNorm.bias.add_(1)
    batch = padded(data, [0, 1, 2])
    inputs = {name: values for name, values in batch.items() if name not in ("row", "labels")}
    with torch.no_grad():
        full, cut = (model(**inputs, output_hidden_states=True) for model in (teacher, student))
    expected = [
        F.mse_loss(cut.hidden_states[s][:, 0], full.hidden_states[t][:, 0]) for s, t in [(0, 0), (1, 3), (2, 4), (3, 5)]
    ]
    assert torch.equal(full.hidden_states[0], cut.hidden_states[0]) and expected[1] > 0.1
    options = DistillOptions(alpha=1, temperature=1, beta=2)
    logits = F.kl_div(cut.logits.log_softmax(-1), full.logits.softmax(-1), reduction="batchmean")
    found = loss_of(student, teacher, options, matched_states((0, 3, 4), DEPTH), batch)
    assert found == pytest.approx((logits + 2 * sum(expected) / 4).item(), rel=1e-5)


def test_pooled_states_are_compared_as_the_teachers_head_reads_them():
    data, teacher, student = rows_of("xlnet"), model_of("xlnet"), model_of("xlnet")
    drop_layers(student, LayerPlan(DEPTH, (1, 2)))
    batch = padded(data, [0, 1, 2])  # padded on the left
    inputs = {name: values for name, values in batch.items() if name not in ("row", "labels")}
    with torch.no_grad():
        full, cut = (model(**inputs, output_hidden_states=True) for model in (teacher, student))
    real = [mask.bool() for mask in inputs["attention_mask"]]
    one, other = (
        torch.stack([states[mask].mean(0) for states, mask in zip(out.hidden_states[-1], real, strict=True)])
        for out in (full, cut)
    )
    expected = F.mse_loss(F.normalize(one, dim=-1), F.normalize(other, dim=-1)).item()
    pairs = matched_states((0, 3, 4), DEPTH, states="last")
    with_states, without = (
        loss_of(student, teacher, DistillOptions(alpha=1, beta=beta, tokens="pooled", normalise=True), pairs, batch)
        for beta in (2, 1)
    )
    assert with_states - without == pytest.approx(expected, rel=1e-4) and expected > 1e-3
    assert {len(mask) - int(mask.sum()) for mask in real} != {0}


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_that_of_the_same_layer_in_the_full_model(kind):
    data, teacher, student = rows_of(kind), model_of(kind), model_of(kind)
    cut = Cut(LayerPlan(DEPTH, (1, 2)))
    cut.drop(student, (1, 2))
    batch = padded(data, [1, 2])
    inputs = {name: values for name, values in batch.items() if name not in ("row", "labels")}
    before = student.config._attn_implementation
    with showing_attention(student, teacher, wanted=True), torch.no_grad():
        full, cut_down = (model(**inputs, output_attentions=True).attentions for model in (teacher, student))
        assert torch.equal(full[0], cut_down[0]) and full[0].shape[:2] == (2, 2)
        real = inputs["attention_mask"].bool()
        expected = 0.0
        for mine, theirs in zip(cut_down, (full[0], full[3], full[4]), strict=True):
            errors = [(mine[b] - theirs[b])[:, real[b]][:, :, real[b]].square() for b in (0, 1)]
            expected += sum(e.sum() for e in errors).item() / sum(e.numel() for e in errors) / 3
        wanted = Wanted(attentions=cut.present)
        options = [DistillOptions(alpha=1, temperature=1, gamma=gamma) for gamma in (0, 10)]
        loss = [distillation_loss(lambda _, rows: teaching.ask(teacher, rows, wanted), wanted, (), each)(
            student, dict(batch)).item() for each in options]  # fmt: skip
    assert loss[1] - loss[0] == pytest.approx(10 * expected, rel=1e-3) and expected > 1e-4
    assert student.config._attn_implementation == before


def test_labels_count_for_the_rest_of_the_weight():
    data, teacher, student = rows_of(), tiny_model("bert", "classification"), model_of("bert", num_hidden_layers=3)
    batch = padded(data, [0, 1, 2, 3])
    with torch.no_grad():
        labels = student(**{name: values for name, values in batch.items() if name != "row"}).loss.item()
    whole, half = (loss_of(student, teacher, DistillOptions(alpha=alpha), (), batch) for alpha in (1, 0.5))
    assert half == pytest.approx(0.5 * whole + 0.5 * labels, rel=1e-5) and abs(whole - labels) > 1e-3


@pytest.mark.parametrize("tokens", ["sentence", "pooled", "all"])
@pytest.mark.parametrize("kind", ["bert", "xlnet"])
def test_kept_outputs_are_those_of_each_batch(kind, tokens, tmp_path):
    data, teacher = rows_of(kind, 70), model_of(kind)
    wanted = Wanted((0, 2, 5), tokens == "all", CLS, pooled=("mean",) if tokens == "pooled" else ())
    kept, how = outputs_of(teacher, data, wanted, tmp_path)
    anew, other = outputs_of(teacher, data, wanted, tmp_path, read_once=True)
    assert how.startswith("computed once; its states take") and other.startswith("computed for each batch")
    for numbers in ([69, 0, 4], [7], [1, 2]):
        batch = padded(data, numbers)
        rows = batch.pop("row")
        del batch["labels"]
        mine, theirs = kept(rows, batch), anew(rows, batch)
        assert torch.allclose(mine.logits_BC, theirs.logits_BC, atol=1e-5)
        assert mine.states_SND.shape == theirs.states_SND.shape == (3, mine.states_SND.shape[1], 16)
        assert torch.allclose(mine.states_SND, theirs.states_SND, rtol=1e-3, atol=1e-4)
    assert theirs.states_SND.abs().max() > 0.5


def test_what_is_too_large_is_computed_anew_and_what_does_not_fit_on_the_disk_is_refused(tmp_path, monkeypatch):
    data, teacher = rows_of(), tiny_model("bert", "classification")
    needed = sum(data.rows["length"]) * 2 * 16 * 2
    monkeypatch.setattr(teaching, "LARGEST", needed - 1)
    assert "computed for each batch, since its states would take 0.0 MB" in outputs_of(
        *(teacher, data, Wanted((0, 1), True), tmp_path))[1]  # fmt: skip
    monkeypatch.setattr(teaching, "LARGEST", needed)
    monkeypatch.setattr(kept_states, "SPARE", shutil.disk_usage(tmp_path).total)
    with pytest.raises(
        UserError, match=f"hidden states take {needed:,} bytes, and the disk of .* has 0 to spare; make"
    ):
        outputs_of(teacher, data, Wanted((0, 1), True), tmp_path)


@pytest.mark.parametrize(
    "other, message",
    [
        ({"vocab_size": 61}, "a vocabulary of 61 tokens and the model one of 60"),
        (
            {"num_labels": 3},
            "the teacher puts out 3 outputs and the model 2 outputs; give a teacher that was fine-tuned",
        ),
        ({"hidden_size": 32}, "hidden states have 32 dimensions and the model's 16; give beta=0"),
        ({"num_hidden_layers": 4}, "the teacher has 4 layers and the full model 5, so their states cannot be matched"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(other, message):
    row = ARCHITECTURES["bert"]
    teacher = row.classes["classification"](row.make_config(**{"depth": DEPTH, **other}))
    with pytest.raises(UserError, match=message):
        check_pair(model_of("bert"), teacher, hidden=True, depth=DEPTH)
    if "states" in message:
        check_pair(model_of("bert"), teacher, hidden=False, depth=DEPTH)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"alpha": 2}, "alpha is between 0 and 1"),
        ({"tokens": "first"}, "tokens of 'distill' is one of sentence, pooled, all, not 'first'"),
        ({"mapping": "skip"}, "mapping of 'distill' is one of boundary, even"),
        ({"alpha": 0}, "nothing is learned from the teacher; use 'finetune'"),
    ],
)
def test_weights_and_words_that_mean_nothing_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        DistillOptions(**options)


def test_without_labels_the_teacher_alone_is_learned_from():
    data, model = rows_of(), model_of("bert")
    drop_layers(model, LayerPlan(DEPTH, (1, 3)))
    cut = Cut(LayerPlan(DEPTH, (1, 3)))
    cut.present = (0, 2, 4)
    unlabelled = dataclasses.replace(data, rows=data.rows.remove_columns("labels"))

    class Full:
        identity = ""

        def model(self):
            return model_of("bert").requires_grad_(False)

    how = {"schedule": Schedule(2, 4, 1e-3, precision="float32"), "seed": 0, "cut": cut, "teacher": Full()}
    with pytest.raises(UserError, match=r"the rows have no labels, .* give alpha=1"):
        distill(model, unlabelled, DistillOptions(), **how)
    healed = distill(model, unlabelled, DistillOptions(alpha=1, beta=1, tokens="all"), **how)
    assert healed.trainings[0].steps == 6 and healed.notes[0].startswith("the teacher's answers: computed once")
