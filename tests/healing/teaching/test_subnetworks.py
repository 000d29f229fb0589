"""Sub-networks of a model that is trained whole: what they compute, what learns, and what runs."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, XLMConfig, XLMForSequenceClassification

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Schedule, TrainingData
from depthprune.healing.methods.adaptive_layers import AdaptiveLayersOptions, adaptive_layers
from depthprune.healing.methods.layerdrop import LayerDropOptions, layerdrop
from depthprune.healing.teaching.losses import logits_loss
from depthprune.healing.teaching.subnetworks import adaptive_loss, layerdrop_loss, trained_in_part
from depthprune.plan import LayerPlan
from depthprune.specs import Execution
from depthprune.surgery import drop_layers
from depthprune.tasks import Task, TaskData
from depthprune.tasks.data.encoding import encode
from tiny_models import ARCHITECTURES, build, inputs, tiny_model, tiny_tokenizer

DEPTH = 4
TASK = Task("first-word", ("text",), "label", ("ba", "be"), ("accuracy",))
LLAMA = {"vocab_size": 60, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
LLAMA |= {"intermediate_size": 24, "num_hidden_layers": DEPTH, "max_position_embeddings": 40, "pad_token_id": 0}
XLM = {"vocab_size": 60, "emb_dim": 16, "n_heads": 2, "n_layers": DEPTH, "max_position_embeddings": 40, "pad_index": 0}


def data(count: int = 16) -> TrainingData:
    from datasets import Dataset

    rows = Dataset.from_dict({"text": ["ba da fu", "be ki"] * (count // 2), "label": [0, 1] * (count // 2)})
    return TrainingData(encode(TaskData(TASK, {"train": rows}), tiny_tokenizer(), 16)["train"], tiny_tokenizer())


def every_model():
    for name in ARCHITECTURES:
        yield pytest.param(lambda name=name: tiny_model(name, "classification", DEPTH), id=name)
    yield pytest.param(lambda: build(LlamaForCausalLM, LlamaConfig(**LLAMA)), id="llama")
    yield pytest.param(lambda: build(XLMForSequenceClassification, XLMConfig(**XLM)), id="xlm")


def batch_for(model) -> dict[str, torch.Tensor]:
    given = inputs(pads_left=model.config.model_type == "xlnet")
    language = type(model).__name__.endswith("CausalLM")
    return {**given, "labels": given["input_ids"] if language else torch.tensor([0, 1])}


def gradients(model) -> dict[str, torch.Tensor | None]:
    return {id(parameter): parameter.grad for parameter in model.parameters()}


def cut(model, dropped):
    """A model without layers that shares the tensors of the others."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return drop_layers(copy.deepcopy(model, tensors), dropped)


@pytest.mark.parametrize("make", list(every_model()))
def test_the_loss_and_the_gradients_are_those_of_the_whole_and_of_the_cut_model(make):
    model, dropped = make(), (1, 3)
    batch = batch_for(model)
    options = AdaptiveLayersOptions(weight=0.7, alpha=0.4, temperature=3.0)
    with trained_in_part(model, data(), [frozenset(dropped)], "test") as parts:
        assert parts.skipped == (frozenset() if model.config.model_type == "xlm" else frozenset(range(DEPTH)))
        loss = adaptive_loss(parts, [frozenset(dropped)], options, accumulation=1)(model, dict(batch))
        loss.backward()
    ours = gradients(model)
    model.zero_grad()
    short, whole = cut(model, dropped)(**batch), model(**batch)
    real = batch["attention_mask"].bool()
    said, aims = (one.logits[real] if one.logits.dim() > 2 else one.logits for one in (short, whole))
    wanted = whole.loss + 0.7 * (0.6 * short.loss + 0.4 * logits_loss(said, aims.detach(), 3.0))
    wanted.backward()
    theirs = gradients(model)
    assert not torch.equal(whole.loss, short.loss) and torch.allclose(loss, wanted, atol=1e-6)
    known = [key for key, grad in theirs.items() if grad is not None]
    assert len(known) > 20 and set(known) == {key for key, grad in ours.items() if grad is not None}
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-5) for key in known)


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_gradients_reach_only_the_layers_that_run(name):
    model = tiny_model(name, "classification", DEPTH)
    with trained_in_part(model, data(), [frozenset({1})], "test") as parts:
        parts.run(batch_for(model), frozenset({1, 2})).loss.backward()
    of_layers = {n: p.grad for n, p in model.named_parameters() if any(f".{i}." in n for i in range(DEPTH))}
    idle = {n for n in of_layers if ".1." in n or ".2." in n}
    assert len(idle) > 10 and all(of_layers[n] is None for n in idle)
    assert all(grad is not None and grad.abs().sum() > 0 for n, grad in of_layers.items() if n not in idle)


def test_layers_below_the_first_that_is_left_out_run_once():
    model = tiny_model("bert", "classification", DEPTH)
    for dropped, runs in [((2, 3), DEPTH), ((1,), DEPTH + 2), ((0, 2), DEPTH + 2)]:
        with trained_in_part(model, data(), [frozenset(dropped)], "test") as parts:
            before = parts.layer_runs
            adaptive_loss(parts, [frozenset(dropped)], AdaptiveLayersOptions(), accumulation=1)(model, batch_for(model))
            assert parts.layer_runs - before == runs


def test_a_step_trains_what_runs_no_more_layers_than_the_whole_model_has():
    model = tiny_model("bert", "classification", DEPTH)
    for order, together in [((3, 2, 1), [{1, 2, 3}]), ((0, 1, 2), [{1, 3}, {2, 3}])]:
        subnetworks = [frozenset(order[:count]) for count in (1, 2, 3)]
        with trained_in_part(model, data(), subnetworks, "test") as parts, torch.no_grad():
            whole = parts.run(batch_for(model)).loss.item()
            alone = {len(dropped): parts.run(batch_for(model), dropped).loss.item() for dropped in subnetworks}
            loss, seen = adaptive_loss(parts, subnetworks, AdaptiveLayersOptions(alpha=0), accumulation=1), set()
            for _ in range(20):
                before = parts.layer_runs
                seen.add(round(loss(model, batch_for(model)).item(), 4))
                assert parts.layer_runs - before <= (DEPTH if order[0] else 2 * DEPTH)
        means = {round(whole + sum(alone[count] for count in counts) / len(counts), 4) for counts in together}
        assert seen == means and len(means) == len(together)


def test_parts_of_a_batch_leave_the_same_layers_out_and_some_layer_always_runs():
    model, seen = tiny_model("bert", "classification", DEPTH), []
    with trained_in_part(model, data(), [], "test") as parts:
        loss = layerdrop_loss(parts, 0.9, accumulation=2)
        for _ in range(40):
            before = parts.layer_runs
            loss(model, batch_for(model))
            seen.append(parts.layer_runs - before)
    assert seen[::2] == seen[1::2] and min(seen) == 1 < max(seen)


def test_an_epoch_is_chosen_by_the_mean_over_all_depths():
    model, looks = tiny_model("bert", "classification", 3), []

    def measure(trained, rows):
        with torch.no_grad():
            looks.append(trained(**batch_for(model)).logits.sum().item())
        return looks[-1]

    schedule = Schedule(num_epochs=1, batch_size=8, precision="float32", validation_fraction=0.25)
    given = TrainingData(data().rows, tiny_tokenizer(), measure=measure)
    options = AdaptiveLayersOptions(depths=(1, 2), order="2,1")
    healed = adaptive_layers(model, given, options, schedule=schedule, seed=0, cut=Cut(LayerPlan(3, ())))
    assert len(set(looks)) == 3 and healed.trainings[0].validation_score == pytest.approx(sum(looks) / 3)


def test_a_training_with_gradient_checkpointing_is_refused():
    model, given = tiny_model("bert", "classification", 3), data()
    given = TrainingData(given.rows, given.tokenizer, execution=Execution(gradient_checkpointing=True))
    schedule = Schedule(num_epochs=1, batch_size=8, precision="float32")
    with pytest.raises(UserError, match="'layerdrop' leaves layers out, which"):
        layerdrop(model, given, LayerDropOptions(), schedule=schedule, seed=0, cut=Cut(LayerPlan(3, ())))


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "trains sub-networks of a model whose layers go afterwards, and none are to go here"),
        ({"depths": (3,), "order": "2"}, "are below the model's, and 3 is not below 3"),
        ({"depths": (1,), "order": "2"}, "a depth of 1 lacks 2 layers, and the order of 'adaptive-layers' has 1"),
        ({"depths": (2,), "order": "7"}, "has layer 7, which the model does not have"),
        ({"order": "2,x"}, "the order '2,x' of 'adaptive-layers' is no list of layers; write 5,4,3"),
        ({"order": "2,2"}, "is no list of layers"),
        ({"depths": (0,)}, "is a number of layers, 1 or more, not 0"),
        ({"alpha": 2}, "alpha is between 0 and 1"),
    ],
)
def test_sub_networks_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        AdaptiveLayersOptions(**options).subnetworks(Cut(LayerPlan(3, ())))
