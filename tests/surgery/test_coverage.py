"""Beyond the census of architectures a cut is made only when both models were run and agree."""

import pytest
import torch
from transformers import BertModel, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from census.tiny import build as census_build
from census.tiny import model_classes, small_configs
from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan
from depthprune.surgery import bypassed, drop_layers
from depthprune.surgery.census import covered_version
from depthprune.surgery.coverage import Beyond, beyond_census, check_verified, taken_as_covered
from tiny_models import ARCHITECTURES, SIZES, build, inputs, output

PLAN = LayerPlan(4, (1, 2))
BEYOND = Beyond("the census has not tried it", True)


class OwnBert(BertModel):
    """Code of one's own that computes what transformers' does."""


class ScaledBert(BertModel):
    """Code of one's own that divides by the depth where no comparison of modules shows it."""

    def forward(self, *args, **kwargs):
        result = super().forward(*args, **kwargs)
        result.last_hidden_state = result.last_hidden_state / len(self.encoder.layer)
        return result


class OwnLlava(LlavaForConditionalGeneration):
    """Code of one's own with a tower that text alone does not reach."""


def own(model_class: type, depth: int = 4):
    return build(model_class, ARCHITECTURES["bert"].make_config(depth))


def test_what_the_census_has_tried_needs_no_run():
    assert beyond_census({"model_type": "bert"}, ["num_hidden_layers"], installed=covered_version()) is None
    nested = {"model_type": "llava", "text_config": {"model_type": "llama"}}
    assert beyond_census(nested, ["text_config.num_hidden_layers"], installed=covered_version()) is None
    part = {"model_type": "bark", "semantic_config": {"model_type": "semantic"}}
    assert beyond_census(part, ["semantic_config.num_layers"], installed=covered_version()) is None


@pytest.mark.parametrize(
    ("config", "key", "installed", "words"),
    [
        ({"model_type": "brand_new"}, "num_hidden_layers", "5.0", "does not cover 'brand_new'"),
        (
            {"model_type": "llava", "text_config": {"model_type": "timm_wrapper"}},
            "text_config.num_hidden_layers",
            "5.0",
            "does not cover 'timm_wrapper'",
        ),
        ({"model_type": "bert"}, "num_hidden_layers", "5.99.0.dev0", "transformers 5.99.0.dev0 is newer"),
        ({"model_type": "bert"}, "num_hidden_layers", "6.0", "transformers 6.0 is newer"),
    ],
)
def test_a_type_or_a_version_beyond_the_census_is_named_with_what_to_do(config, key, installed, words):
    beyond = beyond_census(config, [key], installed=installed)
    assert beyond is not None and words in beyond.reason
    check_verified(beyond, "logits")
    with pytest.raises(CannotDropError, match=r"add --verify logits, which runs the model before and after"):
        check_verified(beyond, "headers")


def test_code_of_ones_own_is_cut_in_memory_when_both_models_agree():
    model = own(OwnBert).train()
    before = output(own(OwnBert), inputs())
    with bypassed(own(OwnBert), PLAN.dropped) as whole:
        wanted = output(whole, inputs())

    cut = drop_layers(model, PLAN)

    assert cut is model and len(cut.encoder.layer) == 2 and cut.training
    assert torch.equal(output(cut.eval(), inputs()), wanted) and not torch.equal(wanted, before)


def test_code_of_ones_own_that_computes_with_the_depth_is_refused_and_left_as_it_was():
    model = own(ScaledBert)
    before = output(model, inputs())

    with pytest.raises(CannotDropError, match="outputs differ from those of the old one"):
        drop_layers(model, PLAN)

    assert len(model.encoder.layer) == model.config.num_hidden_layers == 4
    assert torch.equal(output(model, inputs()), before)


def test_a_new_type_with_a_stack_that_made_up_input_does_not_reach_is_refused():
    text = LlamaConfig(**{**SIZES, "num_hidden_layers": 4})
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_attention_heads=2, num_hidden_layers=3, image_size=8, patch_size=4
    )
    config = LlavaConfig(text_config=text, vision_config=vision, image_token_index=59, vision_feature_layer=-1)
    model = build(OwnLlava, config)

    with pytest.raises(CannotDropError, match=r"random input does not reach the stack 'vision'.*its own code"):
        drop_layers(model, {"text": PLAN})
    with taken_as_covered():
        assert drop_layers(model, {"text": PLAN}).config.text_config.num_hidden_layers == 2


def test_layers_of_a_loop_and_those_whose_states_all_later_ones_read_are_refused():
    """inkling2_loop came with transformers 5.24; the comparison of modules sees nothing of its loop."""
    _, config = next(iter(small_configs("inkling2_loop_text")))
    entries = {name: value for name, value in config.to_dict().items() if name != "layer_types"}
    entries |= {"num_hidden_layers": 6, "n_layers_per_attn_res_block": 1}
    entries |= {"loop_layer_index_start": 2, "loop_layer_index_end": 4}
    model = census_build(model_classes("inkling2_loop_text")[0], type(config).from_dict(entries))
    with taken_as_covered():
        with pytest.raises(CannotDropError, match="layer 3 of 'inkling2_loop_text' runs in a loop or before it"):
            drop_layers(model, LayerPlan(6, (3,)))
        with pytest.raises(CannotDropError, match=r"states before layer 4 .* are read by all later layers"):
            drop_layers(model, LayerPlan(6, (4,)))
