"""Rules of quantisers that name layers: renamed where names are written out, refused where numbers would change."""

from pathlib import Path

import pytest

from depthprune.checkpoints.header import StoredTensor
from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan
from depthprune.surgery.config.depth import edited
from depthprune.surgery.config.quantised import check_plain
from depthprune.surgery.stacks import Stack

STACK = Stack("layers", ("model.layers",), "num_hidden_layers", 24)
MIDDLE, TOP = LayerPlan(24, (3, 4)), LayerPlan(24, (22, 23))


def rules(given: dict, plan: LayerPlan = MIDDLE, *, inside: str = "") -> dict:
    config = {"num_hidden_layers": 24, **({inside: {"quantization_config": given}} if inside else {})}
    config |= {} if inside else {"quantization_config": given}
    new = edited(config, {STACK: plan})
    return (new[inside] if inside else new)["quantization_config"]


@pytest.mark.parametrize(
    "given",
    [
        {"dynamic": {r"+:.*\.18\..*": {"bits": 8}}},  # GPTQModel
        {"dynamic": {r"-:.*\.(?:17|18)\.mlp": {}}},
        {"config_groups": {"group_0": {"targets": [r"re:.*\.3\.mlp\..*"]}}},  # compressed-tensors
        {"ignore": [r"re:.*[.][4-6][.]mlp"]},
        {"targets": r"re:.*\.\d\.mlp"},  # one digit: the layers up to 9
        {"exclude": ["*.3.*"]},  # Quark
        {"layer_quant_config": {"*.18.*": {"dtype": "int8"}}},
        {"ignore": [r"re:.*layers\.(1|5)\..*"]},
        {"ignore": ["3.mlp.down_proj"]},
        {"bits_of": {"0": 8, "18": 4}},
        {"layers_to_skip": [0, 18]},
        {"skip_blocks": {"text": [1]}, "layers": [5]},
        {"bits_per_layer": [4] * 24},
    ],
)
def test_rules_that_name_layers_by_number_are_refused_where_the_numbers_change(given):
    with pytest.raises(CannotDropError, match=r"number.*write the names of the modules out, or drop the last"):
        rules(given)


@pytest.mark.parametrize(
    "given",
    [
        {"dynamic": {r"+:.*\.18\..*": {"bits": 8}}, "exclude": ["*.3.*"]},
        {"bits_of": {"0": 8, "18": 4}, "layers_to_skip": [0, 18]},
    ],
)
def test_rules_by_number_stay_where_only_the_last_layers_go(given):
    assert rules(given, TOP) == given


def test_rules_that_name_no_layer_of_the_stack_stay():
    given = {
        "quant_method": "gptq",
        "meta": {"quantizer": ["gptqmodel:1.4.2"], "uri": "https://github.com/modelcloud/gptqmodel"},
        "weight_block_size": [128, 128],
        "block_structure": [1, 2],
        "ignore": ["lm_head", r"re:.*layers\.\d+\.mlp", r"re:.*layers\.[0-9]+\.mlp", "visual.blocks.3.mlp"],
        "targets": ["Linear", r"re:.*\.experts\.3\..*", "model.layers.*.mlp", r"re:visual\.blocks\.[12]\."],
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 128}}},
    }
    assert rules(given) == given


def test_names_written_out_are_renamed_wherever_the_rules_stand():
    given = {"ignore": ["model.layers.3.mlp", "model.layers.18.mlp", "layers.18"], "only": "model.layers.7.mlp"}
    for inside in ("", "text_config"):
        found = rules(given, inside=inside)
        assert found == {"ignore": ["model.layers.16.mlp", "layers.16"], "only": "model.layers.5.mlp"}


def dtypes(*tensors):
    return {tensor.name: tensor.dtype for tensor in tensors}


def stored(name: str, dtype: str = "BF16") -> StoredTensor:
    return StoredTensor(name, Path("model.safetensors"), dtype, (48, 8), 0, 48 * 8 * 2)


@pytest.mark.parametrize(("last", "dtype"), [("weight", "F8_E4M3"), ("weight_scale_inv", "F32"), ("qweight", "I32")])
def test_a_quantised_tensor_that_holds_a_part_for_every_layer_is_refused(last, dtype):
    module = "model.language_model.per_layer_model_projection"

    with pytest.raises(CannotDropError, match=rf"{module}' holds a part for every layer and is quantised \('{last}'"):
        check_plain(dtypes(stored(f"{module}.{last}", dtype)), {STACK: TOP})
    check_plain(dtypes(stored(f"{module}.weight"), stored("model.layers.0.mlp.qweight", "I32")), {STACK: TOP})
    check_plain(dtypes(stored(f"{module}.{last}", dtype)), {STACK: LayerPlan(24, ())})
