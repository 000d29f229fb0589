"""Adapters of PEFT, cut along with their model, against the adapted original with those layers bypassed."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import (
    BartConfig,
    BartModel,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from depthprune.checkpoints.adapters.config import METHODS, cut_config
from depthprune.checkpoints.adapters.cut import cut_adapter, plan_adapter
from depthprune.errors import CannotDropError, LoadError, OutputError
from depthprune.plan import LayerPlan
from depthprune.surgery import drop_layers
from depthprune.surgery.bypass import bypass_lists
from depthprune.surgery.stacks import Stack
from tiny_models import SIZES, build, inputs, output

# peft uses names that transformers will rename; that a tensor of an adapter is missing stays an error.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning",
    "ignore:Setting `save_embedding_layers`",
    "ignore:Unsupported layer type",
)
DEPTH = 4
PLAN = LayerPlan(DEPTH, (1,))
LLAMA = Stack("layers", ("model.layers",), "num_hidden_layers", DEPTH)
BERT = Stack("layers", ("bert.encoder.layer",), "num_hidden_layers", DEPTH)
ENCODER = Stack("encoder", ("encoder.layers",), "encoder_layers", DEPTH)
DECODER = Stack("decoder", ("decoder.layers",), "decoder_layers", DEPTH)
PROJECTIONS = ["q_proj", "v_proj"]

LORA = {"r": 3, "lora_alpha": 5, "target_modules": PROJECTIONS}
CONFIGS: dict[str, peft.PeftConfig] = {
    "LOHA": peft.LoHaConfig(r=3, target_modules=PROJECTIONS),
    "LOKR": peft.LoKrConfig(r=3, target_modules=PROJECTIONS),
    "LORA": peft.LoraConfig(**LORA),
}
OTHERS = {
    "ADALORA": peft.AdaLoraConfig(init_r=3, target_r=2, total_step=10, target_modules=PROJECTIONS),
    "IA3": peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "OFT": peft.OFTConfig(oft_block_size=4, target_modules=PROJECTIONS),
    "VERA": peft.VeraConfig(r=3, target_modules=PROJECTIONS),
}
HALF = "model.layers.{}.self_attn.{}"
LORAS: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "with biases": {"bias": "all"},
    "some layers": {"layers_to_transform": [0, 1, 3], "layers_pattern": "layers"},
    "some layers without a pattern": {"layers_to_transform": [1, 2]},
    "one layer": {"layers_to_transform": 3},
    "a rank for a layer": {"rank_pattern": {"layers.2.self_attn.q_proj": 2, "layers.1.self_attn.q_proj": 4}},
    "a scale for a layer": {"alpha_pattern": {"^model.layers.3.self_attn.v_proj": 11}},
    "ranks by a pattern": {"rank_pattern": {r".*\.[23]\..*q_proj": 1, "v_proj": 2}},
    "the first pattern counts": {"alpha_pattern": {r"layers\.[1-3]\..*": 2, "layers.2.self_attn.q_proj": 9}},
    "names of modules": {"target_modules": [HALF.format(i, "q_proj") for i in (1, 2, 3)]},
    "short names of modules": {"target_modules": ["2.self_attn.q_proj", "1.mlp.up_proj", "o_proj"]},
    "a regular expression": {"target_modules": r".*\.(q|k)_proj"},
    "a regular expression with numbers": {"target_modules": r".*layers\.(0|1|3)\..*(q|up)_proj"},
    "all linear modules": {"target_modules": "all-linear"},
    "modules left out": {"exclude_modules": ["layers.2.self_attn.q_proj"]},
    "modules saved whole": {"modules_to_save": ["lm_head", "layers.1.input_layernorm", "layers.3.input_layernorm"]},
    "the embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
}


def llama(depth: int = DEPTH) -> PreTrainedModel:
    return build(LlamaForCausalLM, LlamaConfig(**SIZES, num_key_value_heads=2, num_hidden_layers=depth))


def bert(depth: int = DEPTH) -> PreTrainedModel:
    return build(BertForSequenceClassification, BertConfig(**SIZES, num_hidden_layers=depth))


def bart() -> PreTrainedModel:
    sizes = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    depths = {"encoder_layers": DEPTH, "decoder_layers": DEPTH}
    return build(BartModel, BartConfig(vocab_size=60, d_model=16, max_position_embeddings=40, **sizes, **depths))


def adapter(folder: Path, model: PreTrainedModel, config: peft.PeftConfig) -> Path:
    """Write an adapter with random weights."""
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    adapted.save_pretrained(folder)
    return folder


def adapted_output(model: PreTrainedModel, folder: Path, bypassed: Mapping[str, Iterable[int]] | None = None):
    """Return what an adapted model says, with layers of its lists bypassed; every tensor of the adapter is used."""
    adapted = peft.PeftModel.from_pretrained(model, folder).eval()
    stored = load_file(folder / "adapter_model.safetensors")
    used = peft.get_peft_model_state_dict(adapted, save_embedding_layers=any("embed_tokens" in name for name in stored))
    assert used.keys() == stored.keys()
    with ExitStack() as bypasses:
        for path, layers in (bypassed or {}).items():
            bypasses.enter_context(bypass_lists([adapted.get_base_model().get_submodule(path)], layers))
        return output(adapted, inputs())


def cut_both(
    tmp_path: Path, make: Callable[[], PreTrainedModel], config: peft.PeftConfig, plans: Mapping[Stack, LayerPlan]
) -> dict[str, Any]:
    """Cut an adapter and its model apart, and compare both together with the adapted original; return the config."""
    source = adapter(tmp_path / "adapter", make(), config)
    expected = adapted_output(make(), source, {stack.path: plan.dropped for stack, plan in plans.items()})

    cut_adapter(source, tmp_path / "cut", plans=plans, base_model="me/shorter")

    shorter = drop_layers(make(), {stack.name: plan for stack, plan in plans.items()})
    alone = output(shorter, inputs())
    answer = adapted_output(shorter, tmp_path / "cut")
    assert torch.equal(answer, expected)
    assert not torch.allclose(answer[:, -alone.shape[1] :], alone), "the adapter changes something"
    return json.loads((tmp_path / "cut" / "adapter_config.json").read_text())


def test_every_method_that_is_known_is_tested():
    assert set(CONFIGS) == set(METHODS)


@pytest.mark.parametrize("method", CONFIGS)
def test_a_cut_adapter_on_the_cut_model_is_the_adapted_original_without_those_layers(method, tmp_path):
    cut_both(tmp_path, llama, CONFIGS[method], {LLAMA: PLAN})


@pytest.mark.parametrize("kind", LORAS)
def test_every_way_to_choose_modules_is_cut_exactly(kind, tmp_path):
    cut_both(tmp_path, llama, peft.LoraConfig(**{**LORA, **LORAS[kind]}), {LLAMA: PLAN})


@pytest.mark.parametrize("dropped", [(0,), (3,), (0, 2), (1, 2, 3)])
def test_any_layers_may_go(dropped, tmp_path):
    config = peft.LoraConfig(**{**LORA, "layers_to_transform": [0, 1, 2, 3], "alpha_pattern": {r"[a-z.]*\.0\..*": 9}})

    new = cut_both(tmp_path, llama, config, {LLAMA: LayerPlan(DEPTH, dropped)})

    assert new["layers_to_transform"] is None and len(new["target_modules"]) == 2 * (DEPTH - len(dropped))


@pytest.mark.parametrize("more", [{}, {"layers_to_transform": [1, 2], "layers_pattern": "layer"}, {"use_dora": True}])
def test_an_adapter_with_a_new_head_is_cut_and_keeps_the_head(more, tmp_path):
    config = peft.LoraConfig(task_type="SEQ_CLS", r=3, target_modules=["query", "dense"], **more)

    new = cut_both(tmp_path, bert, config, {BERT: PLAN})

    assert set(new["modules_to_save"]) == {"classifier", "score"}
    heads = [load_file(tmp_path / at / "adapter_model.safetensors") for at in ("adapter", "cut")]
    assert torch.equal(*(head["base_model.model.classifier.weight"] for head in heads))


PLANS_OF_TWO = {"other layers": LayerPlan(DEPTH, (2,)), "none": LayerPlan(DEPTH, ())}


@pytest.mark.parametrize("other", PLANS_OF_TWO)
@pytest.mark.parametrize("more", [{}, {"layers_to_transform": [0, 2]}, {"rank_pattern": {"layers.2.fc1": 1}}])
def test_stacks_are_cut_by_their_own_plans(more, other, tmp_path):
    config = peft.LoraConfig(r=3, target_modules=["q_proj", "fc1"], **more)

    cut_both(tmp_path, bart, config, {ENCODER: PLAN, DECODER: PLANS_OF_TWO[other]})


def test_layers_of_a_stack_that_is_not_cut_keep_their_numbers(tmp_path):
    config = peft.LoraConfig(r=3, target_modules=r"encoder.*q_proj")

    cut_both(tmp_path, bart, config, {ENCODER: LayerPlan(DEPTH, ()), DECODER: PLAN})


def test_cut_apart_is_merged_and_then_cut(tmp_path):
    source = adapter(tmp_path / "adapter", llama(), peft.LoraConfig(**LORA, use_dora=True))
    merged = peft.PeftModel.from_pretrained(llama(), source).merge_and_unload()
    expected = output(drop_layers(merged, PLAN), inputs())

    cut_adapter(source, tmp_path / "cut", plans={LLAMA: PLAN}, base_model="me/shorter")

    answer = adapted_output(drop_layers(llama(), PLAN), tmp_path / "cut")
    torch.testing.assert_close(answer, expected)
    assert not torch.allclose(answer, output(drop_layers(llama(), PLAN), inputs()))


def test_parameters_of_experts_are_cut_along(tmp_path):
    def mixture() -> PreTrainedModel:
        experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
        sizes = {**SIZES, **experts, "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": DEPTH}
        return build(Qwen3MoeForCausalLM, Qwen3MoeConfig(**sizes))

    named = [f"layers.{i}.mlp.experts.gate_up_proj" for i in (1, 2)]
    config = peft.LoraConfig(r=2, target_modules=[], target_parameters=[*named, "mlp.experts.down_proj"])

    new = cut_both(tmp_path, mixture, config, {LLAMA: PLAN})

    assert set(new["target_parameters"]) == {"model.layers.1.mlp.experts.gate_up_proj", "mlp.experts.down_proj"}


@pytest.mark.parametrize("method", OTHERS)
def test_what_is_not_like_lora_is_to_be_merged_first_and_the_merged_model_is_cut(method, tmp_path):
    source = adapter(tmp_path / "adapter", llama(), OTHERS[method])
    expected = adapted_output(llama(), source, {LLAMA.path: PLAN.dropped})

    with pytest.raises(
        CannotDropError, match=rf"'{method}': merge it into the model first \(merge_and_unload of peft\)"
    ):
        cut_adapter(source, tmp_path / "cut", plans={LLAMA: PLAN}, base_model="me/shorter")

    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    merged = peft.PeftModel.from_pretrained(llama(), source).merge_and_unload()
    torch.testing.assert_close(output(drop_layers(merged, PLAN), inputs()), expected)


@pytest.mark.parametrize(
    "config",
    [
        peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    ],
    ids=["prefix", "prompt"],
)
def test_virtual_tokens_cannot_be_merged_and_are_to_be_trained_anew(config, tmp_path):
    source = adapter(tmp_path / "adapter", llama(), config)

    with pytest.raises(CannotDropError, match=r"_TUNING cannot be merged; train one for the shorter model"):
        cut_adapter(source, tmp_path / "cut", plans={LLAMA: PLAN}, base_model="me/shorter")
    assert not hasattr(peft.PeftModel.from_pretrained(llama(), source), "merge_and_unload")


@pytest.mark.parametrize("path", ["encoder.layer", "bert.encoder.layer", "model.bert.encoder.layer"])
def test_a_stack_is_known_by_the_end_of_its_path(path, tmp_path):
    source = adapter(tmp_path / "adapter", bert(), peft.LoraConfig(r=3, target_modules=["query"]))

    cut = plan_adapter(source, {Stack("layers", (path,), "num_hidden_layers", DEPTH): PLAN}, base_model="x")

    assert len(cut.dropped) == 2 and all(".layer.1." in tensor.name for tensor in cut.dropped)
    renamed = "base_model.model.bert.encoder.layer.1.attention.self.query.lora_A.weight"
    assert cut.kept[renamed].tensor.name == renamed.replace("layer.1", "layer.2")


def edit(folder: Path, **entries: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


REFUSED = {
    "another method": ({"peft_type": "NEWRA"}, "only adapters of LORA, LOHA, LOKR are, not of 'NEWRA'"),
    "no method": ({"peft_type": ["LORA"]}, r"not of \['LORA'\]"),
    "layers repeated": ({"layer_replication": [[0, 3], [1, 4]]}, "repeats layers of its model"),
    "an unknown entry": ({"new_entry": {"model.layers.3": 1}}, r"'new_entry' names 'model\.layers\.3'"),
    "a broken pattern": ({"rank_pattern": {"layers.1.(": 1}}, "is not a valid pattern"),
    "a wrong type": ({"target_modules": 3}, "'target_modules' is 3"),
    "wrong items": ({"layers_to_transform": ["1"]}, r"'layers_to_transform' is \['1'\]"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_cut_exactly_is_refused_with_the_reason(kind, tmp_path):
    source = adapter(tmp_path / "adapter", llama(), peft.LoraConfig(**LORA))
    entries, message = REFUSED[kind]
    edit(source, **entries)

    with pytest.raises(CannotDropError, match=message):
        cut_adapter(source, tmp_path / "cut", plans={LLAMA: PLAN}, base_model="me/shorter")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_adapter_of_which_nothing_is_left_is_refused(tmp_path):
    source = adapter(tmp_path / "adapter", llama(), peft.LoraConfig(**LORA, layers_to_transform=[1]))

    with pytest.raises(CannotDropError, match="every layer that the adapter changes is dropped"):
        cut_adapter(source, tmp_path / "cut", plans={LLAMA: PLAN}, base_model="me/shorter")


STRANGE = {
    "a deeper model": ({Stack("layers", ("model.layers",), "n", 3): LayerPlan(3, (1,))}, "has a layer 3 in"),
    "another model": ({Stack("layers", ("transformer.h",), "n", 4): PLAN}, r"\(model\.layers\) is the stack 'layers'"),
    "two stacks": (
        {Stack(at, (f"{at}.model.layers",), "n", 4): PLAN for at in "ab"},
        "could be any of the stacks a, b",
    ),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_an_adapter_of_another_model_is_refused(kind, tmp_path):
    source = adapter(tmp_path / "adapter", llama(), peft.LoraConfig(**LORA))
    plans, message = STRANGE[kind]

    with pytest.raises(CannotDropError, match=message):
        plan_adapter(source, plans, base_model="x")


def test_two_lists_that_could_be_one_stack_are_refused(tmp_path):
    source = adapter(tmp_path / "adapter", bart(), peft.LoraConfig(r=3, target_modules=["fc1"]))

    with pytest.raises(CannotDropError, match=r"both '\w+\.layers' and '\w+\.layers' could be the stack"):
        plan_adapter(source, {Stack("layers", ("layers",), "n", DEPTH): PLAN}, base_model="x")


def test_all_adapters_of_a_folder_are_cut_and_what_lies_beside_travels(tmp_path):
    source = adapter(tmp_path / "adapter", llama(), peft.LoraConfig(**LORA))
    adapter(source / "other", llama(), peft.LoraConfig(**LORA, use_dora=True))
    adapter(source / "checkpoint-5", llama(), peft.LoraConfig(**LORA))
    (source / "optimizer.pt").write_bytes(b"pickle")
    (source / "tokenizer.json").write_text("{}")
    card = "---\nlicense: mit\nbase_model: me/long\ntags:\n- lora\n- base_model:adapter:me/long\n---\n# Mine\n"
    (source / "README.md").write_text(card)

    cuts = cut_adapter(source, tmp_path / "cut", plans={LLAMA: PLAN}, base_model="me/short", provenance={"cuts": []})

    names = ["README.md", "adapter_config.json", "adapter_model.safetensors", "depthprune.json"]
    others = {f"other/{name}" for name in names}
    files = {str(f.relative_to(tmp_path / "cut")) for f in (tmp_path / "cut").rglob("*") if f.is_file()}
    assert set(cuts) == {"", "other"} and files == {*names, "tokenizer.json", *others}
    new = ModelCard.load(tmp_path / "cut" / "README.md")
    assert new.data.to_dict() == {
        "license": "mit",
        "base_model": "me/short",
        "tags": ["lora", "depthprune", "layer-dropping"],
    }
    assert "# Mine" in new.text and "me/long" not in new.content
    entries = json.loads((tmp_path / "cut" / "other" / "adapter_config.json").read_text())
    assert entries["base_model_name_or_path"] == "me/short" and entries["revision"] is None


def test_a_pickle_no_adapter_and_a_broken_one_are_refused(tmp_path):
    source = adapter(tmp_path / "adapter", llama(), peft.LoraConfig(**LORA))
    shutil.copytree(source, tmp_path / "broken")
    (tmp_path / "broken" / "adapter_model.safetensors").write_bytes(b"\0" * 20)
    (source / "adapter_model.safetensors").rename(source / "adapter_model.bin")

    (tmp_path / "empty").mkdir()

    for folder, message in (("adapter", "in a pickle"), ("broken", "download it again"), ("empty", "has no")):
        with pytest.raises(LoadError, match=message):
            cut_adapter(tmp_path / folder, tmp_path / "cut", plans={LLAMA: PLAN}, base_model="me/shorter")
    assert not (tmp_path / "cut").exists()


def test_the_folder_of_the_adapter_is_no_target(tmp_path):
    source = adapter(tmp_path / "adapter", llama(), peft.LoraConfig(**LORA))

    with pytest.raises(OutputError, match="inside"):
        cut_adapter(source, source / "cut", plans={LLAMA: PLAN}, base_model="me/shorter")


def test_what_megatron_needs_is_left_alone():
    names = {f"h.{i}.q.lora_A.weight": f"h.{i}.q.lora_A.weight" for i in range(2)}
    given = {"peft_type": "LORA", "target_modules": ["q"], "megatron_config": {"at": "layers.3"}, "megatron_core": "m"}

    assert cut_config(given, names) == given
