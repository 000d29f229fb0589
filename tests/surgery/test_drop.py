"""Dropping layers, against two oracles and no numbers written by hand.

A: a cut model computes, bit for bit, what the whole one does with those layers bypassed.
B: a cut model that was saved and loaded again is the one in memory.

Every comparison first asserts that the cut changed the output: else it would compare a model with itself.
"""

from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from depthprune.checkpoints.save import save_checkpoint
from depthprune.errors import CannotDropError, PlanError
from depthprune.plan import LayerPlan
from depthprune.surgery import bypassed, drop_layers, find_stacks
from tiny_models import ARCHITECTURES, DEPTH, HEADS, build, inputs, output, tiny_model

PLANS = {"first": (0,), "middle": (2,), "last": (4,), "alternate": (2, 4), "all-but-one": (1, 2, 3, 4)}
SMALL = {"vocab_size": 60, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
CASES = [
    pytest.param(name, head, dropped, id=f"{name}-{head}-{plan}")
    for name, row in ARCHITECTURES.items()
    for head in HEADS
    for plan, dropped in PLANS.items()
    if not set(dropped) & set(row.needed)
]


def given_to(name: str) -> dict[str, torch.Tensor]:
    return inputs(pads_left=ARCHITECTURES[name].pads_left)


def assert_cut_equals_bypassed(
    model: PreTrainedModel, dropped: tuple[int, ...], given: dict[str, torch.Tensor], stack: str = "layers"
) -> None:
    """Assert oracle A, and first that the cut shows in the output. The model is cut afterwards."""
    full = output(model, given)
    with bypassed(model, dropped, stack=stack):
        expected = output(model, given)
    assert drop_layers(model, {stack: LayerPlan(find_stacks(model)[stack].depth, dropped)}) is model
    cut = output(model, given)
    assert not torch.equal(cut, full)
    assert torch.equal(cut, expected)


def assert_refused(model: PreTrainedModel, plan: Any, error: type[Exception], *words: str) -> None:
    """Assert that the drop fails with all of `words` in its message and leaves the model as it was."""
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    with pytest.raises(error) as caught:
        drop_layers(model, plan)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    after = model.state_dict()
    assert list(after) == list(tensors)
    assert all(torch.equal(after[name], tensor) for name, tensor in tensors.items())
    assert model.config.to_dict() == config


@pytest.mark.parametrize(("name", "head", "dropped"), CASES)
def test_a_cut_model_equals_the_whole_one_with_those_layers_bypassed(name, head, dropped):
    assert_cut_equals_bypassed(tiny_model(name, head), dropped, given_to(name))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_saved_cut_model_loads_back_plainly_as_the_one_in_memory(name, head, tmp_path):
    model, given = tiny_model(name, head), given_to(name)
    full = output(model, given)
    drop_layers(model, LayerPlan(DEPTH, (1, 4)))
    cut = output(model, given)
    assert not torch.equal(cut, full)
    save_checkpoint(model, tmp_path / "cut")
    again, info = type(model).from_pretrained(tmp_path / "cut", output_loading_info=True)
    assert not any(info.values()), info
    assert again.config.num_hidden_layers == DEPTH - 2
    assert torch.equal(output(again.eval(), given), cut)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_hidden_states_of_a_cut_model_are_those_of_the_kept_layers(name):
    model, given, plan = tiny_model(name), given_to(name), LayerPlan(DEPTH, (1, 3))

    def states() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return model(**given, output_hidden_states=True).hidden_states

    full = states()
    with bypassed(model, plan.dropped):
        expected = states()
    assert len(full) == len(expected) == DEPTH + 1
    assert torch.equal(expected[1], expected[2]), "a bypassed layer hands on what it was given"
    drop_layers(model, plan)
    cut, kept = states(), (0, *(i + 1 for i in plan.kept))
    assert len(cut) == len(kept)
    assert not torch.equal(cut[-1], full[-1])
    assert all(torch.equal(one, expected[i]) for one, i in zip(cut, kept, strict=True))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_cut_model_has_the_attributes_of_one_built_from_its_configuration(name):
    model = drop_layers(tiny_model(name), LayerPlan(DEPTH, (1, 3)))
    fresh = dict(type(model)(model.config).named_modules())
    assert list(dict(model.named_modules())) == list(fresh)
    for path, module in model.named_modules():
        plain = {k: v for k, v in vars(module).items() if isinstance(v, int | float | str) and k != "training"}
        assert plain == {k: vars(fresh[path])[k] for k in plain}, path


@pytest.mark.parametrize(
    ("name", "path", "counter"), [("xlnet", "", "n_layer"), ("distilbert", "transformer", "n_layers")]
)
def test_counters_that_modules_keep_of_their_own_follow_the_depth(name, path, counter):
    model = tiny_model(name)
    assert getattr(model.get_submodule(path), counter) == DEPTH
    drop_layers(model, LayerPlan(DEPTH, (1, 3)))
    assert getattr(model.get_submodule(path), counter) == 3


def test_the_kinds_of_attention_move_with_their_layers():
    model = tiny_model("modernbert")
    kinds = model.config.layer_types
    assert kinds == ["full_attention", *["sliding_attention"] * 2, "full_attention", "sliding_attention"]
    drop_layers(model, LayerPlan(DEPTH, (1, 2)))
    assert model.config.layer_types == ["full_attention", "full_attention", "sliding_attention"]


def test_the_second_stream_of_xlnet_is_bypassed_too():
    model, given = tiny_model("xlnet", "mlm"), given_to("xlnet")
    target_BPT = torch.zeros(2, 1, given["input_ids"].shape[1])
    target_BPT[:, 0, 7] = 1
    hidden_BTT = target_BPT.expand(-1, given["input_ids"].shape[1], -1)
    given |= {"target_mapping": target_BPT, "perm_mask": hidden_BTT}
    assert_cut_equals_bypassed(model, (1, 3), given)


def test_kept_weights_and_the_head_are_neither_copied_nor_changed():
    model = tiny_model("bert", "classification")
    before = dict(model.named_parameters())
    values = {name: parameter.detach().clone() for name, parameter in before.items()}
    drop_layers(model, LayerPlan(DEPTH, (0, 2)))
    after = dict(model.named_parameters())
    old_place = {"bert.encoder.layer.0.": 1, "bert.encoder.layer.1.": 3, "bert.encoder.layer.2.": 4}
    assert {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight"} <= set(after)
    for name, parameter in after.items():
        start = next((start for start in old_place if name.startswith(start)), None)
        old = name if start is None else f"bert.encoder.layer.{old_place[start]}.{name.removeprefix(start)}"
        assert parameter is before[old]
        assert torch.equal(parameter, values[old])


def test_dropping_in_two_steps_is_dropping_at_once():
    at_once, in_steps, given = tiny_model("roberta"), tiny_model("roberta"), given_to("roberta")
    full = output(at_once, given)
    drop_layers(at_once, LayerPlan(DEPTH, (1, 3)))
    drop_layers(drop_layers(in_steps, LayerPlan(DEPTH, (1,))), LayerPlan(DEPTH - 1, (2,)))
    assert not torch.equal(output(at_once, given), full)
    assert torch.equal(output(in_steps, given), output(at_once, given))


def test_a_plan_that_drops_nothing_changes_nothing():
    model, given = tiny_model("bert"), given_to("bert")
    full, config = output(model, given), model.config
    assert drop_layers(model, LayerPlan(DEPTH, ())) is model
    assert model.config is config
    assert torch.equal(output(model, given), full)


def test_a_configuration_shared_with_another_model_is_not_changed():
    row = ARCHITECTURES["bert"]
    config = row.make_config()
    one, other = build(row.classes["classification"], config), build(row.classes["base"], config)
    assert one.config is other.config
    drop_layers(one, LayerPlan(DEPTH, (4,)))
    assert config.num_hidden_layers == other.config.num_hidden_layers == find_stacks(other)["layers"].depth == DEPTH
    held = [module.config for module in one.modules() if hasattr(module, "config")]
    assert len(held) > 1
    assert {id(each) for each in held} == {id(one.config)}
    assert one.config.num_hidden_layers == DEPTH - 1


def test_an_entry_that_equals_the_depth_by_chance_stays():
    config = ARCHITECTURES["xlnet"].make_config(start_n_top=DEPTH, end_n_top=DEPTH)
    model = build(transformers.XLNetForQuestionAnswering, config)
    drop_layers(model, LayerPlan(DEPTH, (1, 3)))
    assert model.config.n_layer == 3
    assert (model.config.start_n_top, model.config.end_n_top) == (DEPTH, DEPTH)
    assert (model.start_n_top, model.end_n_top) == (DEPTH, DEPTH)


def test_the_bypass_is_gone_after_its_block_and_after_an_exception():
    model, given = tiny_model("bert"), given_to("bert")
    full = output(model, given)
    with bypassed(model, (2,)):
        assert not torch.equal(output(model, given), full)
    assert torch.equal(output(model, given), full)
    with pytest.raises(KeyboardInterrupt), bypassed(model, (2,)):
        assert not torch.equal(output(model, given), full)
        raise KeyboardInterrupt
    assert torch.equal(output(model, given), full)


def test_a_cut_decoder_generates_alike_with_and_without_a_cache():
    entries = SMALL | {"num_hidden_layers": DEPTH, "num_key_value_heads": 1, "pad_token_id": 0, "eos_token_id": None}
    model = build(transformers.LlamaForCausalLM, transformers.LlamaConfig(**entries))

    def tokens(use_cache: bool) -> list[int]:
        prompt_BT = torch.tensor([[2, 5, 6, 7]])
        return model.generate(prompt_BT, max_new_tokens=12, do_sample=False, use_cache=use_cache)[0].tolist()

    full = tokens(use_cache=True)
    with bypassed(model, (1, 3)):
        expected = tokens(use_cache=False)
    drop_layers(model, LayerPlan(DEPTH, (1, 3)))
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2]
    assert tokens(use_cache=False) != full
    assert tokens(use_cache=True) == tokens(use_cache=False) == expected


@pytest.mark.parametrize("head", HEADS)
def test_the_first_layer_of_modernbert_cannot_go(head):
    assert_refused(
        tiny_model("modernbert", head),
        LayerPlan(DEPTH, (0, 2)),
        CannotDropError,
        "layer 0",
        "attn_norm",
        "keep layer 0",
    )


def test_the_first_layer_of_deberta_with_a_convolution_cannot_go():
    row = ARCHITECTURES["deberta-v2"]
    model = build(row.classes["base"], row.make_config(conv_kernel_size=3, conv_act="gelu"))
    assert_refused(model, LayerPlan(DEPTH, (0,)), CannotDropError, "layer 0", "convolution", "keep layer 0")
    assert_cut_equals_bypassed(model, (2,), inputs())  # its other layers can go


def test_of_albert_only_the_last_passes_can_go():
    entries = {**SMALL, "embedding_size": 8, "num_hidden_layers": DEPTH}
    model = build(transformers.AlbertModel, transformers.AlbertConfig(**entries))
    assert_refused(model, LayerPlan(DEPTH, (2,)), CannotDropError, "shares the weights of one layer", "--strategy top")
    with torch.no_grad():
        states = model(**inputs(), output_hidden_states=True).hidden_states  # of every pass: an independent way
    assert len(states) == DEPTH + 1 and not torch.equal(states[3], states[DEPTH])

    cut = drop_layers(model, LayerPlan(DEPTH, (3, 4)))

    assert torch.equal(output(cut, inputs()), states[3])
    assert cut.config.num_hidden_layers == 3


def test_an_architecture_that_computes_with_the_layer_index_is_refused():
    entries = SMALL | {"num_hidden_layers": DEPTH, "attention_type": "original_full", "sep_token_id": 3}
    model = build(transformers.BigBirdModel, transformers.BigBirdConfig(**entries))
    assert_refused(model, LayerPlan(DEPTH, (2,)), CannotDropError, "'big_bird'", "seeded with its index")


def test_a_plan_for_another_depth_is_refused():
    assert_refused(tiny_model("bert"), LayerPlan(12, (11,)), PlanError, "12 layers", "has 5", "LayerPlan(5, …)")


def test_a_model_with_two_stacks_needs_a_plan_for_a_named_one():
    entries = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "decoder_start_token_id": 0}
    model = build(
        transformers.T5ForConditionalGeneration, transformers.T5Config(**entries, num_layers=4, num_decoder_layers=3)
    )
    given = inputs() | {"decoder_input_ids": torch.tensor([[0, 5, 6], [0, 7, 8]])}
    assert_refused(model, LayerPlan(4, (3,)), PlanError, "'encoder' (4 layers), 'decoder' (3 layers)")
    assert_refused(
        model, {"encodr": LayerPlan(4, (3,))}, PlanError, "'encodr'", "did you mean 'encoder'?", "'decoder' (3 layers)"
    )
    assert_cut_equals_bypassed(model, (1,), given, stack="decoder")
    assert (model.config.num_layers, model.config.num_decoder_layers) == (4, 2)


@pytest.mark.parametrize(("stack", "depth"), [("encoder", 4), ("decoder", 3)])
def test_the_position_bias_of_t5_moves_to_the_new_first_layer(stack, depth, tmp_path):
    entries = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "decoder_start_token_id": 0}
    model = build(
        transformers.T5ForConditionalGeneration, transformers.T5Config(**entries, num_layers=4, num_decoder_layers=3)
    )
    given = inputs() | {"decoder_input_ids": torch.tensor([[0, 5, 6], [0, 7, 8]])}
    assert_cut_equals_bypassed(model, (0,), given, stack=stack)
    assert len(model.get_submodule(stack).block) == depth - 1
    name = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    assert name in model.state_dict()


class LowRank(nn.Module):
    """A linear layer with an adapter on top, as peft puts it into a model."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.Linear(base.in_features, 2, bias=False)
        self.lora_B = nn.Linear(2, base.out_features, bias=False)

    def forward(self, states_BTD: torch.Tensor) -> torch.Tensor:
        return self.base_layer(states_BTD) + self.lora_B(self.lora_A(states_BTD))


def test_a_model_with_an_adapter_in_it_is_refused():
    model = tiny_model("bert")
    attention = model.encoder.layer[0].attention.self
    attention.query = LowRank(attention.query)
    assert_refused(model, LayerPlan(DEPTH, (4,)), CannotDropError, "attention.self.query", "merge adapters")


def test_a_bypass_of_two_stacks_needs_a_stack_that_exists():
    entries = {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 24, "vocab_size": 60}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**entries, num_layers=4))

    for stack, message in ((None, "several stacks"), ("encodr", "no stack 'encodr'; did you mean 'encoder'")):
        with pytest.raises(PlanError, match=message), bypassed(model, (1,), stack=stack):
            pass


def test_a_deeper_model_has_its_tensors_listed_no_more_often(monkeypatch):
    """Listing takes milliseconds for each layer: once for each tensor it would be seconds for a large model."""

    def listings(depth: int) -> int:
        model, listed = tiny_model("bert", depth=depth), []
        right = transformers.BertModel.state_dict
        with monkeypatch.context() as patch:
            patch.setattr(transformers.BertModel, "state_dict", lambda *a, **k: listed.append(1) or right(*a, **k))
            drop_layers(model, [1])
        return len(listed)

    assert 0 < listings(3) == listings(6)
