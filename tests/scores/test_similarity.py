"""Similarity scores of one pass, against definitions written out over stored hidden states."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from depthprune.errors import UserError
from depthprune.scores import registry
from depthprune.scores.capture import similarity_pass
from depthprune.surgery.modules import find_stacks
from tiny_models import ARCHITECTURES, DEPTH, build, inputs, tiny_model

PASS = [name for name, metric in registry.items() if metric.needs == "pass"]


def llama(**more):
    config = LlamaConfig(
        vocab_size=60, hidden_size=16, num_attention_heads=2, num_key_value_heads=2, intermediate_size=24,
        num_hidden_layers=DEPTH, max_position_embeddings=40, pad_token_id=0, **more,
    )  # fmt: skip
    return build(LlamaForCausalLM, config)


def scores(model, batches, token="first"):
    stack = find_stacks(model)["layers"]
    sums = similarity_pass(model, stack, batches, token=token)
    return {name: registry.get(name).function(sums) for name in PASS}


def sequences(count=7, pads_left=False):
    """Return single sequences of different lengths, and a way to batch them."""
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(5, 60, (4 + 3 * n % 11,), generator=generator) for n in range(count)]

    def batches(size, order=None):
        chosen = [rows[i] for i in (order or range(count))]
        for start in range(0, count, size):
            part = chosen[start : start + size]
            longest = max(map(len, part))
            ids = torch.zeros(len(part), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for i, row in enumerate(part):
                at = slice(longest - len(row), None) if pads_left else slice(0, len(row))
                ids[i, at], mask[i, at] = row, 1
            yield {"input_ids": ids, "attention_mask": mask}

    return batches


def test_the_scores_are_what_their_formulas_say():
    model, batch = tiny_model("bert"), inputs()
    found = scores(model, [batch])
    with torch.no_grad():
        states = [s.double() for s in model(**batch, output_hidden_states=True).hidden_states]
    mask = batch["attention_mask"].bool()
    cosine = torch.nn.functional.cosine_similarity
    for i in range(DEPTH):
        before, after = states[i], states[i + 1]
        assert found["contribution"].layers[i] == pytest.approx(
            1 - cosine(before[:, 0], after[:, 0], dim=-1).mean().item(), abs=1e-6
        )
        assert found["block-influence"].layers[i] == pytest.approx(
            1 - cosine(before, after, dim=-1)[mask].mean().item(), abs=1e-6
        )
        assert found["relative-magnitude"].layers[i] == pytest.approx(
            ((after - before).norm(dim=-1) / before.norm(dim=-1))[mask].mean().item(), rel=1e-6
        )
    for n in range(1, DEPTH + 1):
        for start in range(DEPTH - n + 1):
            angle = cosine(states[start][:, 0], states[start + n][:, 0], dim=-1).clamp(-1, 1).arccos() / math.pi
            assert found["angular"].windows[n][start] == pytest.approx(angle.mean().item(), abs=1e-6)
    assert len(set(found["block-influence"].layers)) == DEPTH, "there is something to compare"


@pytest.mark.parametrize("name", [*ARCHITECTURES, "llama"])
def test_batch_size_and_order_hardly_change_a_score(name):
    model = llama() if name == "llama" else tiny_model(name)
    batches = sequences(pads_left=name == "xlnet")
    token = "last" if name in ("xlnet", "llama") else "first"
    one = scores(model, list(batches(7)), token)
    for other in (batches(1), batches(3), batches(2, order=(6, 2, 0, 4, 1, 5, 3))):
        again = scores(model, list(other), token)
        for metric in PASS:
            assert again[metric].layers == pytest.approx(one[metric].layers, abs=1e-5), metric
            for n, window in one[metric].windows.items():
                assert again[metric].windows[n] == pytest.approx(window, abs=1e-5), metric


def test_the_side_of_the_padding_does_not_matter_where_positions_follow_the_mask():
    model = llama()  # rotary positions are relative: a shift of all of them changes nothing
    left, right = (list(sequences(pads_left=side)(7)) for side in (True, False))
    assert not torch.equal(left[0]["input_ids"], right[0]["input_ids"])
    one, other = (scores(model, given, "last") for given in (left, right))
    for metric in PASS:
        assert other[metric].layers == pytest.approx(one[metric].layers, abs=1e-5), metric


def test_first_and_last_token_are_found_from_the_mask():
    model = llama()
    batches = list(sequences(pads_left=True)(7))
    first, last = (scores(model, batches, token)["contribution"].layers for token in ("first", "last"))
    assert first != pytest.approx(last, abs=1e-4)


def test_the_mean_is_over_real_tokens_alone():
    model, batch = tiny_model("bert"), inputs()
    mask = batch["attention_mask"].bool()
    assert not mask.all(), "there is padding to leave out"
    found = scores(model, [batch], "mean")
    with torch.no_grad():
        given = model(**batch, output_hidden_states=True).hidden_states
    means = [torch.stack([row[real].mean(0) for row, real in zip(s.double(), mask, strict=True)]) for s in given]
    cosine = torch.nn.functional.cosine_similarity(means[1], means[2], dim=-1)
    assert found["contribution"].layers[1] == pytest.approx(1 - cosine.mean().item(), abs=1e-6)
    assert found["angular"].layers[1] == pytest.approx((cosine.arccos() / math.pi).mean().item(), abs=1e-5)
    assert found["block-influence"].layers == scores(model, [batch])["block-influence"].layers, "it has all tokens"


def test_a_score_is_of_the_batch_and_no_state_outlives_it():
    model, batch = tiny_model("bert"), inputs()
    stack = find_stacks(model)["layers"]
    once = similarity_pass(model, stack, [batch], token="first")
    twice = similarity_pass(model, stack, [batch, batch], token="first")
    assert twice.tokens == 2 * once.tokens and twice.sequences == 4
    assert torch.equal(twice.cosine_L, 2 * once.cosine_L)


def test_states_that_are_not_finite_are_named_with_layer_and_batch():
    model, batch = tiny_model("bert"), inputs()
    with torch.no_grad():
        model.encoder.layer[3].output.dense.weight.fill_(float("inf"))
    with pytest.raises(UserError, match=r"layer 3 returns hidden states that are not finite \(batch 0\)"):
        scores(model, [batch])


def test_a_layer_that_does_nothing_scores_zero():
    from depthprune.surgery.bypass import bypassed

    model = tiny_model("bert")
    with bypassed(model, (2,)):
        found = scores(model, [inputs()])
    for metric in PASS:
        assert found[metric].layers[2] == pytest.approx(0, abs=1e-6)
        assert min(found[metric].layers[i] for i in (0, 1, 3, 4)) > 1e-3
