"""A cut model runs with the cache that transformers makes for it, or is refused."""

import copy
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan
from depthprune.surgery import drop_layers
from tiny_models import build

NARROW = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 60,
}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "vocab_size": 60, "num_layers": 4, "num_decoder_layers": 4}
PROPHETNET = {
    "hidden_size": 16,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "num_encoder_attention_heads": 2,
    "num_decoder_attention_heads": 2,
    "num_encoder_layers": 4,
    "num_decoder_layers": 4,
    "vocab_size": 60,
    "max_position_embeddings": 64,
}


def lfm2() -> PreTrainedModel:
    kinds = ["conv", "full_attention", "conv", "full_attention"]
    config = transformers.Lfm2Config(**NARROW, num_hidden_layers=4, layer_types=kinds, pad_token_id=0)
    return build(transformers.Lfm2ForCausalLM, config)


def generated(model: Any) -> torch.Tensor:
    model.generation_config.update(pad_token_id=0, eos_token_id=None, decoder_start_token_id=0)
    return model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False)


def test_a_hybrid_that_would_have_no_attention_left_is_refused():
    model = lfm2()
    assert generated(drop_layers(copy.deepcopy(model), LayerPlan(4, (0, 1)))).shape == (1, 7)
    with pytest.raises(CannotDropError, match=r"leaves 'lfm2' no layer with attention, .* keep one of layers 1, 3$"):
        drop_layers(model, LayerPlan(4, (1, 3)))
    assert len(model.model.layers) == 4


@pytest.mark.parametrize("kind", ["T5", "UMT5", "LongT5"])
def test_an_encoder_can_be_shallower_than_its_decoder_and_the_model_still_generates(kind, tmp_path):
    config = getattr(transformers, f"{kind}Config")(**T5)
    model = build(getattr(transformers, f"{kind}ForConditionalGeneration"), config)
    cut = drop_layers(model, {"encoder": LayerPlan(4, (1, 2))})
    text = generated(cut)
    assert cut.config.decoder_layers == 4
    cut.save_pretrained(tmp_path)
    assert torch.equal(generated(type(cut).from_pretrained(tmp_path)), text)
    drop_layers(cut, {"decoder": LayerPlan(4, (3,))})
    assert cut.config.decoder_layers == 3
    assert generated(cut).shape == text.shape


def test_the_encoder_of_prophetnet_cannot_become_shallower_than_its_decoder():
    model = build(transformers.ProphetNetForConditionalGeneration, transformers.ProphetNetConfig(**PROPHETNET))
    with pytest.raises(CannotDropError, match=r"4 decoder layers, .* a cache of 3, .* drop at least 1 decoder layers"):
        drop_layers(model, {"encoder": LayerPlan(4, (1,))})
    drop_layers(model, {"encoder": LayerPlan(4, (1,)), "decoder": LayerPlan(4, (0,))})
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert model(input_ids=ids, decoder_input_ids=ids).logits.shape == (1, 3, 60)
