"""The census on a slice of the architectures, and on surgery that is wrong."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from census.report import page, tries
from census.runner import Options, examine, read_results, run_types
from depthprune.plan import LayerPlan
from depthprune.surgery import drop_layers

QUICK = Options(singles=2, sets=1, reloads=1)

# Type → how many of its plans are exact: the first and the last layer and half of them, in each of its stacks.
SLICE = {
    "bert": 3,
    "roberta": 3,
    "distilbert": 3,
    "xlm": 3,
    "xlnet": 3,
    "deberta-v2": 2,
    "modernbert": 1,
    "electra": 3,
    "llama": 3,
    "gpt2": 3,
    "gpt_neo": 3,
    "opt": 3,
    "qwen2": 3,
    "qwen3": 3,
    "gemma2": 3,
    "gemma3_text": 3,
    "phi3": 3,
    "gpt_oss": 3,
    "mixtral": 3,
    "qwen3_moe": 3,
    "deepseek_v3": 3,
    "mamba": 3,
    "falcon_mamba": 3,
    "olmo_hybrid": 2,
    "lfm2": 3,
    "nemotron_h": 3,
    "t5": 6,
    "bart": 6,
    "marian": 6,
    "whisper": 6,
    "encoder-decoder": 6,
    "vit": 3,
    "dinov2": 3,
    "convnext": 8,
    "clip": 6,
    "siglip": 6,
    "wav2vec2": 3,
    "hubert": 3,
    "audio-spectrogram-transformer": 3,
    "llava": 5,
    "mllama_vision_model": 4,
    "qwen2_5_vl": 6,
}


@pytest.mark.parametrize("model_type", SLICE)
def test_a_type_of_the_slice_is_cut_exactly_or_refused(model_type, tmp_path):
    results = tmp_path / "results.jsonl"
    run_types([model_type], results, QUICK)
    record = read_results(results)[model_type]
    outcomes = [plan["outcome"] for plan in tries(record)]
    assert record["state"] == "tried", record["reason"]
    assert set(outcomes) <= {"exact", "refused"}, record
    assert outcomes.count("exact") >= SLICE[model_type], record
    assert any(plan["reloaded"] for plan in tries(record))


def test_tensors_that_layers_share_are_written_where_the_cut_model_looks_for_them():
    record = examine("zamba", Options(singles=1, sets=0, stream=True))
    outcomes = [(plan["outcome"], plan["notes"]) for plan in tries(record)]
    assert ("exact", "streamed") in outcomes, record
    assert {outcome for outcome, _ in outcomes} <= {"exact", "refused"}, record


def test_a_tower_that_the_whole_model_does_not_show_is_run_alone():
    record = examine("kosmos-2", QUICK)
    notes = {name: {plan["notes"] for plan in stack["plans"]} for name, stack in record["stacks"].items()}
    assert {plan["outcome"] for plan in tries(record)} == {"exact"}, record
    assert notes["vision"] == {"compared in vision_model alone"}


def neighbour(model: PreTrainedModel, plans: Mapping[str, LayerPlan]) -> PreTrainedModel:
    """Drop the layer beside each that was asked for."""
    beside = {name: LayerPlan(p.depth, tuple((i + 1) % p.depth for i in p.dropped)) for name, p in plans.items()}
    return drop_layers(model, beside)


def unnumbered(model: PreTrainedModel, plans: Mapping[str, LayerPlan]) -> PreTrainedModel:
    """Drop the right layers, and leave to those after them the numbers they had."""
    before = [layer.self_attn.layer_idx for layer in model.model.layers]
    drop_layers(model, plans)
    for i, layer in zip(plans["layers"].kept, model.model.layers, strict=True):
        layer.self_attn.layer_idx = before[i]
    return model


def broken(model: PreTrainedModel, plans: Mapping[str, LayerPlan]) -> PreTrainedModel:
    """Fail with an error that is no refusal."""
    raise KeyError("layers")


@pytest.mark.parametrize(
    ("drop", "outcome", "words"),
    [(neighbour, "WRONG", "differs by up to"), (unnumbered, "DEAD", "IndexError"), (broken, "crash", "KeyError")],
)
def test_surgery_that_is_wrong_is_found_out(drop, outcome, words):
    record = examine("llama", Options(singles=2, sets=0, reloads=1, drop=drop))
    first = tries(record)[0]
    assert first["dropped"] == (0,)
    assert first["outcome"] == outcome
    assert words in first["reason"]


def test_types_that_died_or_took_too_long_have_a_line_and_the_run_goes_on(tmp_path):
    results = tmp_path / "results.jsonl"
    run_types(["bert", "no-such-type"], results, Options(seconds=0.001))
    records = read_results(results)
    assert set(records) == {"bert", "no-such-type"}
    assert {record["state"] for record in records.values()} <= {"not tried", "not built"}


def test_the_page_says_of_every_type_what_came_out(tmp_path: Path):
    results = tmp_path / "results.jsonl"
    run_types(["albert", "bert", "no-such-type"], results, QUICK)
    text = page(read_results(results), ["albert", "bert", "no-such-type", "gpt2"])
    rows = {name: [line for line in text.splitlines() if line.startswith(f"| {name} |")] for name in SLICE}
    assert "3 exact" in rows["bert"][0]
    assert rows["gpt2"] == ["| gpt2 | the census has not come to it |"]
    assert "| no-such-type | not built: KeyError" in text
    assert "None among those tried." in text
