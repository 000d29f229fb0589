"""Bypassing layers, against models in which those layers do nothing, and without `drop_layers`."""

import itertools

import pytest
import torch
import transformers
from torch import Tensor, nn

from depthprune.errors import CannotDropError
from depthprune.surgery import bypassed
from depthprune.surgery.bypass import bypass_lists
from tiny_models import build

IDS = torch.arange(3, 13).view(1, 10)
SIZES = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 4}
T5 = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": 4, "num_decoder_layers": 4}


def last_states(model: nn.Module, **more: Tensor) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, **more)[0]


# Model, stack, and the last projection of each branch of layer `i`: without them the layer adds nothing.
BRANCHES = {
    "llama": (
        lambda: build(transformers.LlamaModel, transformers.LlamaConfig(**SIZES)),
        None,
        ("layers.{}.self_attn.o_proj", "layers.{}.mlp.down_proj"),
        {},
    ),
    "gpt2": (
        lambda: build(
            transformers.GPT2Model,
            transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=4, n_head=2),
        ),
        None,
        ("h.{}.attn.c_proj", "h.{}.mlp.c_proj"),
        {},
    ),
    "t5-encoder": (
        lambda: build(transformers.T5Model, transformers.T5Config(**T5)),
        "encoder",
        ("encoder.block.{}.layer.0.SelfAttention.o", "encoder.block.{}.layer.1.DenseReluDense.wo"),
        {"decoder_input_ids": IDS[:, :4]},
    ),
    "t5-decoder": (
        lambda: build(transformers.T5Model, transformers.T5Config(**T5)),
        "decoder",
        (
            "decoder.block.{}.layer.0.SelfAttention.o",
            "decoder.block.{}.layer.1.EncDecAttention.o",
            "decoder.block.{}.layer.2.DenseReluDense.wo",
        ),
        {"decoder_input_ids": IDS[:, :4]},
    ),
}


@pytest.mark.parametrize("layers", [(0,), (3,), (1, 2)], ids=str)
@pytest.mark.parametrize("name", BRANCHES)
def test_a_bypassed_layer_adds_what_it_adds_with_its_last_projections_zeroed(name, layers):
    make, stack, branches, more = BRANCHES[name]
    model = make()
    full = last_states(model, **more)
    with bypassed(model, layers, stack=stack):
        got = last_states(model, **more)
    assert torch.equal(last_states(model, **more), full), "a hook was left behind"
    for branch in branches:
        for i in layers:
            for tensor in model.get_submodule(branch.format(i)).parameters():
                nn.init.zeros_(tensor)
    assert not torch.equal(got, full)
    assert torch.equal(got, last_states(model, **more))


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_a_bypassed_layer_of_parallel_lists_is_one_that_the_lists_do_not_have(layer):
    sizes = {"vocab_size": 40, "emb_dim": 16, "n_heads": 2, "max_position_embeddings": 16}
    model = build(transformers.XLMModel, transformers.XLMConfig(n_layers=4, **sizes))
    full = last_states(model)
    lists = ("attentions", "layer_norm1", "ffns", "layer_norm2")
    with bypass_lists([model.get_submodule(name) for name in lists], (layer,)):
        got = last_states(model)
    short = build(transformers.XLMModel, transformers.XLMConfig(n_layers=3, **sizes), seed=1)
    short.embeddings, short.position_embeddings = model.embeddings, model.position_embeddings
    short.layer_norm_emb = model.layer_norm_emb
    for name in lists:
        setattr(short, name, nn.ModuleList(m for i, m in enumerate(model.get_submodule(name)) if i != layer))
    for i, attention in enumerate(short.attentions):
        attention.layer_id = i  # its place in the cache
    assert not torch.equal(got, full)
    assert torch.equal(got, last_states(short))


class Block(nn.Module):
    """A layer of two streams, named and returned in its own way."""

    def __init__(self, size: int, out: int):
        super().__init__()
        self.one, self.other = nn.Linear(size, out), nn.Linear(size, out)

    def forward(self, mask, *, text_position, text_features, vision_features):
        return (self.one(vision_features), self.other(text_features + text_position)), (mask, mask)


class Model(nn.Module):
    """Runs blocks, whole or in parts."""

    def __init__(self, sizes: tuple[int, ...], whole: bool = True):
        super().__init__()
        self.layers = nn.ModuleList(Block(a, b) for a, b in itertools.pairwise(sizes))
        self.whole = whole

    def forward(self, states: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            if self.whole:
                place = torch.ones_like(text)
                (states, text), _ = layer(None, text_position=place, text_features=text, vision_features=states)
            else:
                states, text = layer.one(states), layer.other(text)
        return states, text


def test_a_layer_with_two_streams_hands_on_both():
    model, states, text = Model((4, 4)), torch.rand(2, 3, 4), torch.rand(2, 5, 4)
    with bypass_lists([model.layers], (0,)):
        got = model(states, text)
    assert torch.equal(got[0], states)
    assert torch.equal(got[1], text)


def test_a_layer_that_changes_the_shape_of_its_states_cannot_be_bypassed():
    model = Model((4, 4, 6))
    with (
        bypass_lists([model.layers], (1,)),
        pytest.raises(CannotDropError, match=r"\(2, 3, 4\) and returns \(2, 3, 6\)"),
    ):
        model(torch.rand(2, 3, 4), torch.rand(2, 5, 4))


def test_a_layer_of_which_only_parts_run_is_no_bypassed_layer():
    model = Model((4, 4, 4), whole=False)
    with (
        pytest.raises(CannotDropError, match=r"layer 1 .* runs its parts separately"),
        bypass_lists([model.layers], (1,)),
    ):
        model(torch.rand(2, 3, 4), torch.rand(2, 5, 4))
