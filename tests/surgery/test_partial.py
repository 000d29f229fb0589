"""Models run in part: without layers, and from a layer on, bit for bit as a bypass would have it."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5Model, XLMConfig, XLMModel

from depthprune.surgery.bypass import bypassed
from depthprune.surgery.modules import find_stacks
from depthprune.surgery.partial import partial_model
from tiny_models import ARCHITECTURES, DEPTH, build, inputs, tiny_model

LLAMA = LlamaConfig(
    vocab_size=60, hidden_size=16, num_attention_heads=2, num_key_value_heads=2, intermediate_size=24,
    num_hidden_layers=DEPTH, max_position_embeddings=40, pad_token_id=0,
)  # fmt: skip
T5 = T5Config(vocab_size=60, d_model=16, d_kv=8, num_heads=2, d_ff=24, num_layers=DEPTH, pad_token_id=0)
XLM = XLMConfig(vocab_size=60, emb_dim=16, n_heads=2, n_layers=DEPTH, max_position_embeddings=40, pad_index=0)


def every_model():
    for name in ARCHITECTURES:
        yield pytest.param(lambda name=name: tiny_model(name), {}, id=name)
    yield pytest.param(lambda: build(LlamaForCausalLM, LLAMA), {}, id="llama")
    yield pytest.param(lambda: build(T5Model, T5), {"decoder_input_ids": inputs()["input_ids"]}, id="t5")
    yield pytest.param(lambda: build(XLMModel, XLM), {}, id="xlm")


def by_bypass(model, stack, batch, dropped):
    with torch.inference_mode(), bypassed(model, dropped, stack=stack):
        return model(**batch)[0]


@pytest.mark.parametrize("make, more", list(every_model()))
def test_a_run_without_layers_equals_the_bypass_bit_for_bit(make, more):
    model, batch = make(), {**inputs(), **more}
    for stack in find_stacks(model).values():
        full = by_bypass(model, stack.name, batch, ())
        for dropped in ({0}, {DEPTH - 1}, {1, 3}, {0, 2, 4}):
            wanted = by_bypass(model, stack.name, batch, dropped)
            assert not torch.equal(wanted, full)
            with partial_model(model, stack, batch) as runner:
                assert torch.equal(runner.run(batch, frozenset(dropped))[0], wanted)
        assert torch.equal(by_bypass(model, stack.name, batch, ()), full), "the model is not as it was"


@pytest.mark.parametrize("make, more", list(every_model()))
def test_a_run_from_a_layer_on_equals_the_whole_run(make, more):
    model, batch = make(), {**inputs(), **more}
    for stack in find_stacks(model).values():
        with partial_model(model, stack, batch) as runner:
            if model.config.model_type == "xlm":
                assert not runner.resumes
                continue
            assert runner.resumes
            states = {}
            runner.run(batch, frozenset({1}), record=lambda i, state, states=states: states.update({i: state}))
            for start in range(2, DEPTH + 1):
                dropped = frozenset({1, 3})
                if start > 3:
                    continue
                wanted = by_bypass(model, stack.name, batch, dropped)
                runs = runner.layer_runs
                assert torch.equal(runner.run(batch, dropped, start=start, state=states[start])[0], wanted)
                always = len(set(range(start)) - runner.skipped)
                assert runner.layer_runs - runs <= DEPTH - start - (1 if start <= 3 else 0) + always


def test_layers_left_out_do_not_run_save_those_that_make_something_for_others():
    model, batch = build(T5Model, T5), {**inputs(), "decoder_input_ids": inputs()["input_ids"]}
    encoder = find_stacks(model)["encoder"]
    with partial_model(model, encoder, batch) as runner:
        assert runner.skipped == frozenset({1, 2, 3, 4})
        runner.run(batch, frozenset({0, 1, 2}))
        assert runner.layer_runs == 3, "the first makes the position bias of all"


def test_a_run_can_end_before_the_head():
    model, batch = tiny_model("bert"), inputs()
    with partial_model(model, find_stacks(model)["layers"], batch) as runner:
        states = {}
        assert runner.run(batch, stop=2, record=lambda i, state: states.update({i: state})) is None
        assert sorted(states) == [1, 2]
        assert runner.layer_runs == 2
