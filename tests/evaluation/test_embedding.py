"""Embeddings are those of each text alone, and their cosine is scored as sentence encoders are."""

import pytest
import torch
from datasets import Dataset

from depthprune.errors import UserError
from depthprune.evaluation.embedding import embed, mean_cosine, similarity
from depthprune.evaluation.measurement import Measurement
from depthprune.tasks import Task, TaskData
from depthprune.tasks.data.sentences import encode_texts
from tiny_models import tiny_model, tiny_tokenizer

TEXTS = ["ba be", "fu ki da fu", "ki", "da da da da da da", "be ba fu"]
PAIRS = Task("pairs", ("a", "b"), "amount", (), ("pearson", "spearman"))


@pytest.mark.parametrize("pooling", [("mean",), ("cls",), ("max", "mean")])
@pytest.mark.parametrize("head", ["base", "classification"])
def test_an_embedding_is_that_of_the_text_alone_in_the_order_of_the_rows(pooling, head):
    model, tokenizer = tiny_model("bert", head, depth=2).train(), tiny_tokenizer()
    together = embed(model, tokenizer, encode_texts(TEXTS, tokenizer, 16), pooling, batch_size=3)
    assert model.training and together.shape == (5, 16 * len(pooling))
    model.eval()
    for text, vector in zip(TEXTS, together, strict=True):
        with torch.no_grad():
            states = model.base_model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        ways = {"mean": states.mean(0), "cls": states[0], "max": states.amax(0)}
        assert torch.allclose(vector, torch.cat([ways[way] for way in pooling]), atol=1e-5)


def test_an_encoder_decoder_and_a_broken_model_have_no_embeddings():
    from transformers import T5Config, T5Model

    t5 = T5Model(T5Config(vocab_size=60, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_decoder_layers=2, num_heads=2))
    rows = encode_texts(TEXTS, tiny_tokenizer(), 16)
    with pytest.raises(UserError, match="'t5' is an encoder-decoder; give another model"):
        embed(t5, tiny_tokenizer(), rows)
    broken = tiny_model("bert", depth=2)
    torch.nn.init.constant_(broken.get_submodule("encoder.layer.1.output.dense").weight, torch.nan)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"no number \(NaN\) for 5 of 5 rows"):
        embed(broken, tiny_tokenizer(), rows)


def test_the_mean_cosine_tells_equal_directions_from_others():
    one = torch.eye(3)
    assert mean_cosine(one, 2 * one) == pytest.approx(1) and mean_cosine(one, one[[1, 0, 2]]) == pytest.approx(1 / 3)


def pairs(count=6):
    rows = {"a": [f"a{i}" for i in range(count)], "b": [f"b{i}" for i in range(count)]}
    return TaskData(PAIRS, {"train": Dataset.from_dict({}), "validation": Dataset.from_dict(
        {**rows, "amount": [float(i) ** 2 for i in range(count)]})})  # fmt: skip


def test_the_cosine_of_pairs_is_scored_by_its_rank():
    def embed_texts(texts):
        angles = torch.tensor([0.0 if text[0] == "a" else 1.5 - 0.2 * int(text[1]) for text in texts])
        return torch.stack([angles.cos(), angles.sin()], -1)

    found = similarity(embed_texts, pairs())
    assert found["spearman"] == Measurement(pytest.approx(1), 6) and 0.8 < found["pearson"].value < 0.999
    assert next(iter(found)) == "spearman"


def test_a_task_without_amounts_for_pairs_is_refused():
    for task in (Task("mrpc", ("a", "b"), "label", ("no", "yes"), ("f1",)), Task("one", ("a",), "x", (), ("pearson",))):
        with pytest.raises(UserError, match=r"such as stsb, and '(mrpc|one)' has none"):
            similarity(lambda texts: torch.ones(len(texts), 2), TaskData(task, {}))
