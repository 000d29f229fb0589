"""The embedding loss compares what it says, and a model that is trained with it comes closer to its teacher."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from depthprune.errors import UserError
from depthprune.evaluation.embedding import embed, mean_cosine
from depthprune.healing.base import Cut, Schedule, TrainingData
from depthprune.healing.methods.embedding import EmbeddingOptions, embedding
from depthprune.healing.teaching.embeddings import check_embeddings, embedding_loss, relative_error, taught_states
from depthprune.plan import LayerPlan
from depthprune.surgery import drop_layers
from depthprune.tasks.data.sentences import encode_texts
from tiny_models import inputs, tiny_model, tiny_tokenizer, words

LINES = words(40 * 5, line=5).splitlines()
ROWS = TrainingData(encode_texts([line[: 3 + 3 * (i % 4)] for i, line in enumerate(LINES)], tiny_tokenizer(), 16),
                    tiny_tokenizer())  # fmt: skip


class Taught:
    """A teacher in memory."""

    identity = "sha256:0"

    def __init__(self, model, pooling=("mean",)):
        self._model, self.pooling = model.eval().requires_grad_(False), pooling

    def model(self):
        return self._model


def student_of(full, dropped=(1, 2)):
    return drop_layers(copy.deepcopy(full).requires_grad_(True), dropped)


def loss_of(teacher, student, batch=None, **options):
    taught, _ = taught_states(teacher, ROWS, Path())
    return embedding_loss(taught, **options)(student, batch or inputs()).item()


@pytest.mark.parametrize("head", ["base", "classification", "mlm"])
def test_a_model_has_nothing_to_learn_from_itself_and_a_cut_one_has(head):
    full = tiny_model("bert", head, depth=4)
    assert loss_of(full, copy.deepcopy(full)) == pytest.approx(0, abs=1e-5)
    assert loss_of(full, student_of(full)) > 0.05


def test_it_is_the_weighted_sum_of_two_distances_that_are_computed_by_hand():
    full = tiny_model("bert", depth=4)
    student, batch = student_of(full), inputs()
    with torch.no_grad():
        learned, taught = (model(**batch).last_hidden_state for model in (student, full))
    real = batch["attention_mask"].bool()
    states = (learned - taught)[real].square().sum() / taught[real].square().sum()
    means = [torch.stack([row[keep].mean(0) for row, keep in zip(s, real, strict=True)]) for s in (learned, taught)]
    pooled = 1 - torch.cosine_similarity(means[0], means[1]).mean()
    assert loss_of(full, student) == pytest.approx((pooled + states).item(), rel=1e-5)
    weighted = loss_of(full, student, pooled=0.5, states=2.0)
    assert weighted == pytest.approx((0.5 * pooled + 2 * states).item(), rel=1e-5)
    first = loss_of(full, student, states=0.0, pooling=("cls",))
    assert first == pytest.approx((1 - torch.cosine_similarity(learned[:, 0], taught[:, 0]).mean()).item(), rel=1e-5)


def test_padding_and_other_columns_change_no_loss():
    full = tiny_model("bert", depth=4)
    student, batch = student_of(full), inputs()
    longer = {name: nn.functional.pad(values, (0, 3)) for name, values in batch.items()}
    assert loss_of(full, student, batch=longer | {"labels": torch.tensor([0, 1])}) == pytest.approx(
        loss_of(full, student, batch=batch), rel=1e-4
    )
    assert relative_error(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), torch.tensor([[1, 0]])).item() == 1


def test_dropout_is_off_unless_it_is_asked_for():
    full = tiny_model("bert", depth=4)
    student = student_of(full).train()
    assert loss_of(full, student) == loss_of(full, student)
    noisy = [loss_of(full, student.train(), dropout=True) for _ in range(2)]
    assert noisy[0] != noisy[1]


@pytest.mark.parametrize("name", ["bert", "xlnet", "modernbert"])
def test_a_cut_model_comes_closer_to_its_teacher_and_its_head_stays(name):
    full = tiny_model(name, "classification", depth=4)
    student, tokenizer = student_of(full), tiny_tokenizer(pads_left=name == "xlnet")
    rows = encode_texts(words(64 * 6, line=6).splitlines(), tokenizer, 16)
    taught, before = embed(full, tokenizer, rows), embed(student, tokenizer, rows)
    head = copy.deepcopy({key: value for key, value in student.state_dict().items() if "classifier" in key})
    schedule = Schedule(num_epochs=6, batch_size=16, learning_rate=3e-3, precision="float32")
    how = {"schedule": schedule, "seed": 0, "cut": Cut(LayerPlan(4, (1, 2)), done=True), "teacher": Taught(full)}
    healed = embedding(student, TrainingData(rows, tokenizer), EmbeddingOptions(), **how)
    after = mean_cosine(embed(healed.model, tokenizer, rows), taught)
    assert healed.trainings[0].steps == 24 and after > mean_cosine(before, taught) + 0.05
    assert all(torch.equal(value, student.state_dict()[key]) for key, value in head.items())


def test_a_teacher_of_another_size_and_an_encoder_decoder_are_refused():
    from transformers import BertConfig, BertModel, T5Config, T5Model

    wide = BertModel(BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2))
    with pytest.raises(UserError, match="hidden states have 32 dimensions and the model's 16"):
        check_embeddings(tiny_model("bert", depth=2), wide)
    t5 = T5Model(T5Config(vocab_size=60, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_decoder_layers=2, num_heads=2))
    with pytest.raises(UserError, match="'t5' has both; heal it with another method"):
        check_embeddings(t5, t5)
    frozen = tiny_model("bert", depth=2).requires_grad_(False)
    with pytest.raises(UserError, match="is frozen, so there is nothing to train"):
        check_embeddings(frozen, frozen)


def test_weights_that_weigh_nothing_are_refused():
    for weights in ({"pooled": 0.0, "states": 0.0}, {"pooled": -1.0}):
        with pytest.raises(UserError, match="weights of a loss"):
            EmbeddingOptions(**weights)  # pyright: ignore[reportArgumentType]


def test_states_that_are_kept_are_those_that_are_computed_anew(tmp_path):
    full, batch_of = tiny_model("bert", "mlm", depth=3), [7, 0, 21, 4]
    calls = []
    full.register_forward_hook(lambda *_: calls.append(1))
    anew, _ = taught_states(full, ROWS, tmp_path)
    kept, how = taught_states(full, ROWS, tmp_path, read_once=False)
    assert how.startswith("computed once; its states take ") and len(calls) == 1, "40 rows are one batch"
    rows = ROWS.rows.remove_columns("length").select(batch_of).to_list()
    batch = dict(tiny_tokenizer().pad(rows, return_tensors="pt"))
    found = kept(torch.tensor(batch_of), batch)
    assert len(calls) == 1 and found.shape == (4, batch["input_ids"].shape[1], 16)
    expected = anew(None, batch) * batch["attention_mask"].unsqueeze(-1)
    assert len(calls) == 2 and torch.allclose(found, expected, atol=5e-3) and not torch.equal(found, expected)
