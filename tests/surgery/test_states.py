"""Heads that read hidden states from the middle of a stack: weighted sums, and entries that name states by number."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import PreTrainedModel

from depthprune.checkpoints.copying import compare_file, write_file
from depthprune.checkpoints.cut import plan_cut, stacks_in_plain_sight
from depthprune.checkpoints.layout import read_checkpoint
from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan
from depthprune.sources import locate
from depthprune.surgery import drop_layers, find_stacks
from depthprune.surgery.bypass import bypassed
from depthprune.surgery.proof.outputs import same_logits
from depthprune.surgery.sized_tensors import Kept, merged_bytes
from tiny_models import build

SOUND = {
    "hidden_size": 16,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "classifier_proj_size": 8,
    "xvector_output_dim": 8,
    "tdnn_dim": (8, 8, 8),
    "tdnn_kernel": (3, 2, 1),
    "tdnn_dilation": (1, 2, 1),
    "use_weighted_layer_sum": True,
}
OWN: dict[str, dict[str, Any]] = {
    "Data2VecAudio": {"conv_pos_kernel_size": 3},
    "SEW": {"squeeze_factor": 1},
    "SEWD": {"squeeze_factor": 1, "max_position_embeddings": 64},
    "Wav2Vec2": {"do_stable_layer_norm": True},
    "Wav2Vec2Bert": {"feature_projection_input_dim": 8, "position_embeddings_type": None},
    "WavLM": {"num_buckets": 8, "max_bucket_distance": 16},
}
THREE_HEADS = ("SequenceClassification", "AudioFrameClassification", "XVector")
WEIGHTED = {
    **dict.fromkeys(("Hubert", "SEW", "SEWD", "UniSpeech"), THREE_HEADS[:1]),
    **dict.fromkeys(("Wav2Vec2", "Wav2Vec2Conformer", "Wav2Vec2Bert"), THREE_HEADS),
    **dict.fromkeys(("WavLM", "UniSpeechSat", "Data2VecAudio"), THREE_HEADS),
}


def weighted(kind: str, head: str) -> PreTrainedModel:
    """Return a model whose head sums hidden states, with weights that are all different."""
    config_class = getattr(transformers, f"{kind}Config")
    model = build(getattr(transformers, f"{kind}For{head}"), config_class(**SOUND | OWN.get(kind, {})))
    with torch.no_grad():
        model.layer_weights.copy_(torch.tensor([0.3, -1.2, 0.8, 1.5, -0.4, 0.6]))
    return model


def heard(model: PreTrainedModel) -> torch.Tensor:
    noise = torch.randn(2, 400, generator=torch.Generator().manual_seed(0))
    bert = type(model).__name__.startswith("Wav2Vec2Bert")
    with torch.no_grad():
        logits = model(**({"input_features": noise.view(2, 50, 8)} if bert else {"input_values": noise})).logits
    return torch.as_tensor(logits)


@pytest.mark.parametrize("kind", WEIGHTED)
def test_a_weighted_sum_gives_a_kept_state_the_weights_of_the_dropped_ones_after_it(kind):
    plans = ((1, 2), (2, 4)) if kind == "SEWD" else ((1, 2), (0, 4))  # SEW-D's first layer has to stay
    for head, dropped in ((head, dropped) for head in WEIGHTED[kind] for dropped in plans):
        model = weighted(kind, head)
        full = heard(model)
        with bypassed(model, dropped):
            expected = heard(model)
        assert (full - expected).abs().max() > 1e-3
        got = heard(drop_layers(model, LayerPlan(5, dropped)))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_merged_weights_are_the_same_bytes_in_a_streamed_cut(dtype, tmp_path):
    model = weighted("Hubert", "SequenceClassification").to(dtype)
    model.save_pretrained(tmp_path / "full")
    source = locate(str(tmp_path / "full"))
    checkpoint, plan = read_checkpoint(source.path), LayerPlan(5, (0, 2, 3))
    stacks = stacks_in_plain_sight(source, checkpoint)
    assert stacks is not None
    cut = plan_cut(source, {stacks["layers"]: plan}, checkpoint)
    write_file(tmp_path / "cut.safetensors", list(cut.kept), cut)
    compare_file(tmp_path / "cut.safetensors", list(cut.kept), cut)
    drop_layers(model, plan).save_pretrained(tmp_path / "memory")
    streamed, saved = load_file(tmp_path / "cut.safetensors"), load_file(tmp_path / "memory" / "model.safetensors")
    assert set(streamed) == set(saved)
    assert all(torch.equal(streamed[name], saved[name]) for name in saved)
    assert streamed["layer_weights"].dtype == dtype
    assert streamed["layer_weights"].shape == (3,)


def test_running_a_cut_with_merged_weights_compares_to_within_rounding(tmp_path):
    model = weighted("Hubert", "SequenceClassification")
    model.save_pretrained(tmp_path / "full")
    plan = LayerPlan(5, (0, 2, 3))
    plans = {find_stacks(model)["layers"]: plan}
    drop_layers(model, plan).save_pretrained(tmp_path / "cut")
    said = same_logits(type(model), tmp_path / "full", tmp_path / "cut", plans)
    assert said == "(2, 2) outputs are equal, to within rounding, since weights were merged"
    with torch.no_grad():
        model.layer_weights[0] += 0.01
    model.save_pretrained(tmp_path / "wrong")
    with pytest.raises(CannotDropError, match="outputs differ from those of the old one"):
        same_logits(type(model), tmp_path / "full", tmp_path / "wrong", plans)


def test_a_merged_weight_that_was_written_wrongly_is_found(tmp_path):
    weighted("Hubert", "SequenceClassification").save_pretrained(tmp_path / "full")
    source = locate(str(tmp_path / "full"))
    checkpoint = read_checkpoint(source.path)
    cut = plan_cut(
        source, {(stacks_in_plain_sight(source, checkpoint) or {})["layers"]: LayerPlan(5, (1,))}, checkpoint
    )
    file = tmp_path / "cut.safetensors"
    write_file(file, ["layer_weights"], cut)
    compare_file(file, ["layer_weights"], cut)
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(CannotDropError, match=r"'layer_weights' in 'cut\.safetensors' differs from the source"):
        compare_file(file, ["layer_weights"], cut)


def test_weights_in_a_dtype_that_cannot_be_added_are_refused():
    part = Kept(0, ((0, 1), (1, 3)), merged=True)
    with pytest.raises(CannotDropError, match="'layer_weights' is stored as F8_E4M3"):
        merged_bytes(b"\0\0\0", "F8_E4M3", part, "layer_weights")


SEEN = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 32, "patch_size": 8}


def segmenter(kind: str) -> tuple[PreTrainedModel, Callable[[PreTrainedModel], torch.Tensor]]:
    """Return a model whose head takes states 1, 3, 5 and 7, which its configuration calls 2, 4, 6 and 8."""
    entries = {"num_hidden_layers": 8, "out_indices": [2, 4, 6, 8], "pool_scales": [1, 2]}
    config = getattr(transformers, f"{kind}Config")(**SEEN, **entries)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = build(getattr(transformers, f"{kind}ForSemanticSegmentation"), config)
    return model, lambda model: model(pixel_values=image).logits


def clipseg() -> tuple[PreTrainedModel, Callable[[PreTrainedModel], torch.Tensor]]:
    text = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2}
    sizes = {"projection_dim": 16, "reduce_dim": 8, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 8}
    config = transformers.CLIPSegConfig(
        text_config={**text, "vocab_size": 60, "eos_token_id": 59, "bos_token_id": 58, "pad_token_id": 0},
        vision_config={**SEEN, "num_hidden_layers": 6},
        extract_layers=[1, 3, 5],
        **sizes,
    )
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[3, 4, 59]])
    model = build(transformers.CLIPSegForImageSegmentation, config)
    return model, lambda model: model(input_ids=ids, pixel_values=image).logits


def molmo2() -> tuple[PreTrainedModel, Callable[[PreTrainedModel], torch.Tensor]]:
    narrow = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    seen = {**narrow, "intermediate_size": 24, "num_hidden_layers": 6, "patch_size": 4, "num_position_embeddings": 4}
    config = transformers.Molmo2Config(
        vision_config=seen,
        adapter_config={**narrow, "vision_feature_layer": [5, 2], "intermediate_size": 24, "text_hidden_size": 16},
        text_config={**narrow, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 60},
    )
    patches = torch.randn(1, 4, 48, generator=torch.Generator().manual_seed(0))
    pooling, grids = torch.arange(4).view(2, 2), torch.tensor([[1, 2, 0, 0]])

    def features(model: Any) -> torch.Tensor:
        return torch.cat(model.get_image_features(patches, pooling, grids).pooler_output)

    return build(transformers.Molmo2Model, config), features


@pytest.mark.parametrize(
    ("make", "stack", "dropped"),
    [
        (lambda: segmenter("Beit"), "layers", (1, 4)),
        (lambda: segmenter("Data2VecVision"), "layers", (1, 4)),
        (clipseg, "vision", (1, 2)),
        (molmo2, "vision", (1, 2)),
    ],
    ids=["beit", "data2vec-vision", "clipseg", "molmo2"],
)
def test_entries_that_name_states_go_with_them(make, stack, dropped):
    model, run = make()
    with torch.no_grad():
        full = run(model)
        with bypassed(model, dropped, stack=stack):
            expected = run(model)
        assert (full - expected).abs().max() > 1e-3
        assert torch.equal(
            run(drop_layers(model, {stack: LayerPlan(8 if stack == "layers" else 6, dropped)})), expected
        )
