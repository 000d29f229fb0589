"""What a drop makes of the entries of a configuration: every rule, with values worked out by hand."""

import pytest

from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan
from depthprune.surgery.config.depth import depth_keys, edited, edited_generation
from depthprune.surgery.config.formulas import edit
from depthprune.surgery.config.refusals import check_positions
from depthprune.surgery.stacks import Stack

PLAN = LayerPlan(6, (1, 4))  # keeps 0, 2, 3, 5
GPT_NEO = ("global", "global", "local", "local")


def after(entries: dict, plan: LayerPlan = PLAN) -> dict:
    fields = {"num_hidden_layers": plan.depth, **entries}
    edit(fields, "num_hidden_layers", plan)
    assert fields.pop("num_hidden_layers") == len(plan.kept)
    return fields


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"layer_types": list("abcdef")}, {"layer_types": list("acdf")}),
        ({"layer_types": list("abc")}, {"layer_types": list("abc")}),  # not an entry a layer
        ({"supported_aspect_ratios": list("abcdef")}, {"supported_aspect_ratios": list("abcdef")}),
        ({"intermediate_size": 24}, {"intermediate_size": 24}),
        ({"intermediate_size": [1, 2, 3, 4, 5, 6]}, {"intermediate_size": [1, 3, 4, 6]}),
        ({"swiglu_limits": [0, 1, 2, 3, 4, 5, 9]}, {"swiglu_limits": [0, 2, 3, 5, 9]}),
        ({"moe_layers": [1, 2, 5]}, {"moe_layers": [1, 3]}),
        ({"first_k_dense_replace": 3}, {"first_k_dense_replace": 2}),
        ({"max_window_layers": 28}, {"max_window_layers": 4}),
        ({"num_kv_shared_layers": 3}, {"num_kv_shared_layers": 2}),
        ({"per_layer_config": {"1": {"a": 1}, "5": {"a": 2}}}, {"per_layer_config": {"3": {"a": 2}}}),
        ({"kv_source_layers": [0, 1, 2, 2, 1, 2]}, {"kv_source_layers": [0, 1, 1, 1]}),
        ({"ple_layer_ids": [1, 3, 6]}, {"ple_layer_ids": [1, 2, 4]}),
        ({"attention_types": [[["global", "local"], 3]]}, {"attention_types": [[[t], 1] for t in GPT_NEO]}),
        ({"block_types": ["r", "r", "a"]}, {"block_types": ["r", "a", "r", "a"]}),
        ({"num_nextn_predict_layers": 1}, {"num_nextn_predict_layers": 0}),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [3]}, {"decoder_sparse_step": 1, "mlp_only_layers": [0, 1, 2]}),
        ({"deepstack_visual_indexes": [0, 3]}, {"deepstack_visual_indexes": [0, 2]}),
        ({"vision_feature_layer": -1}, {"vision_feature_layer": -1}),
        ({"vision_feature_layer": 4}, {"vision_feature_layer": 3}),
        ({"vision_feature_layer": -2}, {"vision_feature_layer": -2}),
    ],
    ids=lambda entries: next(iter(entries)),
)  # fmt: skip
def test_an_entry_is_changed_by_its_rule(entries, expected):
    assert after(entries) == expected


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"kv_source_layers": [0, 1, 1, 3, 4, 5]}, "layer 2 reads the keys and values of layer 1"),
        ({"subsample_layers": [1, 3]}, "layer 1 is one of subsample_layers"),
        ({"merge_index": 4}, "layer 4 is one of merge_index"),
        ({"ple_layer_ids": [2]}, "layer 1 is one of ple_layer_ids"),
        ({"deepstack_visual_indexes": [3, 4]}, "two of deepstack_visual_indexes"),
    ],
)
def test_what_an_entry_cannot_say_is_refused(entries, word):
    with pytest.raises(CannotDropError, match=word):
        after(entries)


def test_a_tap_before_every_kept_layer_is_refused():
    with pytest.raises(CannotDropError, match="no layer up to it is kept"):
        after({"insert_layer_id": 1}, LayerPlan(6, (0, 1)))


def test_a_hidden_state_that_would_become_the_last_is_refused():
    with pytest.raises(CannotDropError, match=r"vision_feature_layer -2 reads hidden state 5.*keep layer 5"):
        after({"vision_feature_layer": -2}, LayerPlan(6, (5,)))


@pytest.mark.parametrize("dropped", [(0,), (0, 1), (2, 3), (0, 3, 5, 6), (5, 6, 7), (0, 2, 4, 6), (1, 3, 5, 7)])
def test_a_period_is_solved_anew_where_one_fits(dropped):
    """The new period and offset must say of each kept layer what the old ones said."""
    plan = LayerPlan(8, dropped)
    fields = after({"attn_layer_period": 2, "attn_layer_offset": 1}, plan)
    period, offset = fields["attn_layer_period"], fields["attn_layer_offset"]

    assert [i % period == offset for i in range(len(plan.kept))] == [i % 2 == 1 for i in plan.kept]


def test_a_period_stays_where_none_fits():
    """Kept: other, attention, attention, other, attention, which no period says; the check of the modules refuses."""
    fields = after({"attn_layer_period": 2, "attn_layer_offset": 1}, LayerPlan(8, (2, 3, 4)))
    assert fields == {"attn_layer_period": 2, "attn_layer_offset": 1}


@pytest.mark.parametrize("count", range(1, 62))
def test_the_residual_scale_of_minicpm3_stays_the_same_number(count):
    import struct

    fields = after({"scale_depth": 1.4}, LayerPlan(62, tuple(range(count))))

    before, now = 1.4 / 62**0.5, fields["scale_depth"] / (62 - count) ** 0.5
    assert fields["scale_depth"] != 1.4
    assert struct.pack("f", before) == struct.pack("f", now)


def test_nested_depths_and_stages_are_found_and_edited():
    config = {
        "model_type": "llava",
        "vision_feature_layer": -2,
        "text_config": {"model_type": "llama", "num_hidden_layers": 4, "layer_types": list("abcd")},
        "vision_config": {"model_type": "swin", "depths": [2, 6]},
        "num_labels": 4,
    }
    assert depth_keys(config) == {
        "text_config.num_hidden_layers": 4,
        "vision_config.depths.0": 2,
        "vision_config.depths.1": 6,
    }
    text = Stack("text", ("model.layers",), "text_config.num_hidden_layers", 4)
    stage = Stack("vision.stage1", ("v",), "vision_config.depths.1", 6)

    new = edited(config, {text: LayerPlan(4, (0,)), stage: LayerPlan(6, (4, 5))})

    assert new["text_config"] == {"model_type": "llama", "num_hidden_layers": 3, "layer_types": list("bcd")}
    assert new["vision_config"]["depths"] == [2, 4] and new["vision_feature_layer"] == -2
    assert config["vision_config"]["depths"] == [2, 6], "the given configuration was changed"


def test_a_nested_configuration_that_the_file_leaves_out_is_put_in():
    """Hub checkpoints leave out what is the default: LLaVA-1.5's text_config has no num_hidden_layers."""
    text = Stack("text", ("model.layers",), "text_config.num_hidden_layers", 32)

    assert edited({"model_type": "llava"}, {text: LayerPlan(32, (31,))})["text_config"] == {"num_hidden_layers": 31}


def test_the_modules_that_a_quantiser_skips_are_renamed():
    stack = Stack("layers", ("model.layers",), "num_hidden_layers", 6)
    config = {
        "num_hidden_layers": 6,
        "quantization_config": {
            "quant_method": "fp8",
            "modules_to_not_convert": ["lm_head", "model.layers.1.mlp", "model.layers.5.mlp"],
            "dynamic": {"layers.2.self_attn": {"bits": 8}, "layers.4.self_attn": {"bits": 4}},
        },
    }

    quantised = edited(config, {stack: PLAN})["quantization_config"]

    assert quantised["modules_to_not_convert"] == ["lm_head", "model.layers.3.mlp"]
    assert quantised["dynamic"] == {"layers.1.self_attn": {"bits": 8}}
    config["quantization_config"]["ignore"] = [r"re:.*layers\.(1|2)\..*"]
    with pytest.raises(CannotDropError, match="pattern that names a layer by its number"):
        edited(config, {stack: PLAN})


def test_whispers_alignment_heads_follow_their_layers():
    decoder = Stack("decoder", ("model.decoder.layers",), "decoder_layers", 6)
    generation = {"alignment_heads": [[1, 0], [2, 3], [5, 1]], "max_length": 448}

    assert edited_generation(generation, {decoder: PLAN}) == {"alignment_heads": [[1, 3], [3, 1]], "max_length": 448}
    encoder = Stack("encoder", ("model.encoder.layers",), "encoder_layers", 6)
    assert edited_generation(generation, {encoder: PLAN}) == generation


@pytest.mark.parametrize(
    ("config", "stack", "dropped", "word"),
    [
        ({"model_type": "hy_v4", "indexer_types": ["full", "shared", "full"]}, "layers", (0,), "selection of layer 0"),
        (
            {"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True},
            "h",
            (1,),
            "layer 2 .* divides its attention",
        ),
        ({"model_type": "sew-d", "conv_kernel_size": 3}, "encoder.layer", (0, 1), "makes layer 2 the first"),
        ({"model_type": "dab-detr"}, "decoder.layers", (2,), "keep layer 2"),
        ({"model_type": "conditional_detr"}, "decoder.layers", (0,), "keep layer 0"),
    ],
)
def test_a_position_that_a_forward_pass_knows_is_kept(config, stack, dropped, word):
    plans = {Stack("layers", (stack,), "num_hidden_layers", 3): LayerPlan(3, dropped)}
    with pytest.raises(CannotDropError, match=word):
        check_positions(config, plans)
    check_positions({"model_type": "bert"}, plans)


def test_a_shared_layer_may_go_and_the_last_layers_of_gpt2_too():
    stack = Stack("layers", ("layers",), "num_hidden_layers", 3)
    check_positions({"indexer_types": ["full", "shared", "full"]}, {stack: LayerPlan(3, (1,))})
    check_positions({"scale_attn_by_inverse_layer_idx": True}, {stack: LayerPlan(3, (1, 2))})


def test_the_layers_that_receive_visual_features_are_found_below_other_configurations():
    stack = Stack("text", ("layers",), "thinker_config.text_config.num_hidden_layers", 5)
    inner = {"vision_config": {"deepstack_visual_indexes": [1, 3]}, "text_config": {"num_hidden_layers": 5}}
    with pytest.raises(CannotDropError, match="one of the first 2"):
        check_positions({"thinker_config": inner}, {stack: LayerPlan(5, (1,))})
    check_positions({"thinker_config": inner}, {stack: LayerPlan(5, (2,))})


def test_an_entry_about_one_of_several_stacks_stays_when_another_is_cut():
    """Mllama's vision model has two stacks in one configuration, and the indices are those of the first."""
    fields = {"num_hidden_layers": 6, "num_global_layers": 6, "intermediate_layers_indices": [1, 3, 5]}
    edit(fields, "num_global_layers", LayerPlan(6, (0, 2)))
    assert fields == {"num_hidden_layers": 6, "num_global_layers": 4, "intermediate_layers_indices": [1, 3, 5]}
    edit(fields, "num_hidden_layers", LayerPlan(6, (0, 2)))
    assert fields == {"num_hidden_layers": 4, "num_global_layers": 4, "intermediate_layers_indices": [0, 1, 3]}


def test_the_layer_that_a_projector_reads_beside_the_last_must_stay():
    """DeepSeek-VL's high-resolution encoder is a SAM, whose first layer with global attention is read, too."""
    vision = {"model_type": "sam_vision_model", "num_hidden_layers": 5, "global_attn_indexes": [2, 4]}
    stack = Stack("high_res_vision", ("model.high_res",), "high_res_vision_config.num_hidden_layers", 5)
    hybrid = {"model_type": "deepseek_vl_hybrid", "high_res_vision_config": vision}
    with pytest.raises(CannotDropError, match="layer 2 of 'sam_vision_model' is read by the projector"):
        check_positions(hybrid, {stack: LayerPlan(5, (1, 2))})
    check_positions(hybrid, {stack: LayerPlan(5, (1, 4))})
    check_positions({**hybrid, "model_type": "sam"}, {stack: LayerPlan(5, (1, 2))})


def test_vipllavas_layers_of_its_image_tower_follow_it_by_either_name():
    tower = Stack("vision", ("vision_tower.layers",), "vision_config.num_hidden_layers", 6)
    for name in ("vision_feature_layer", "vision_feature_layers"):
        config = {"model_type": "vipllava", "vision_config": {"num_hidden_layers": 6}, name: [-2, -3, 1]}
        assert edited(config, {tower: LayerPlan(6, (0,))})[name] == [-2, -3, 0]


@pytest.mark.parametrize(
    ("inside", "entries", "expected"),
    [
        ("vision_config", {"extract_layers": [2, 5]}, {"extract_layers": [1, 3]}),
        ("patch_model_config", {"intermediate_hook_ids": [5, 3]}, {"intermediate_hook_ids": [3, 2]}),
        ("vision_config", {"deepstack_layer_map": [[-1, 0], [4, 2]]}, {"deepstack_layer_map": [[-1, 0], [3, 2]]}),
        (
            "vision_config",
            {"adapter_config": {"vision_feature_layer": [5, -3]}},
            {"adapter_config": {"vision_feature_layer": [3, -2]}},
        ),
        (
            "thinker_config.text_config",
            {"talker_config": {"accept_hidden_layer": 4}},
            {"talker_config": {"accept_hidden_layer": 3}},
        ),
    ],
    ids=["clipseg", "depth_pro", "granite4_vision", "molmo2", "qwen3_omni_moe"],
)
def test_what_an_outer_configuration_says_of_a_stack_is_changed_too(inside, entries, expected):
    inner: dict = {"num_hidden_layers": 6}
    for part in reversed(inside.split(".")):
        inner = {part: inner}
    new = edited({**inner, **entries}, {Stack("", ("layers",), f"{inside}.num_hidden_layers", 6): PLAN})
    assert {name: new[name] for name in expected} == expected


@pytest.mark.parametrize(("head", "indices"), [("BeitForSemanticSegmentation", [2, 4]), ("BeitBackbone", [1, 3])])
def test_the_states_that_beit_names_are_counted_as_its_class_counts_them(head, indices):
    names = ["stem", *(f"stage{i}" for i in range(1, 7))]
    config = {"model_type": "beit", "num_hidden_layers": 6, "architectures": [head], "stage_names": names}
    config |= {"out_indices": [2, 5], "out_features": ["stage2", "stage5"]}
    new = edited(config, {Stack("layers", ("layer",), "num_hidden_layers", 6): PLAN})
    assert new["out_indices"] == indices
    assert new["out_features"] == [names[i] for i in indices]


@pytest.mark.parametrize(
    ("config", "key", "words"),
    [
        ({"model_type": "whisper", "use_weighted_layer_sum": True}, "encoder_layers", "keep layer 5"),
        ({"model_type": "xcodec"}, "semantic_model_config.num_hidden_layers", "averages all hidden states"),
        ({"model_type": "inkling2_text", "n_layers_per_attn_res_block": 2}, "num_hidden_layers", "states before layer"),
        ({"model_type": "inkling2_loop_text", "loop_layer_index_end": 4}, "num_hidden_layers", "layer 2 .* in a loop"),
    ],
)
def test_a_plan_that_would_change_what_all_states_are_read_for_is_refused(config, key, words):
    nested = {"semantic_model_config": {"num_hidden_layers": 6}} if "." in key else {}
    plan = LayerPlan(6, (2, 5))
    with pytest.raises(CannotDropError, match=words):
        check_positions({**config, **nested}, {Stack("layers", ("layers",), key, 6): plan})
