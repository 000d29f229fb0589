"""Training-free repair: what is folded into the weights does what was found, in every kind of layer."""

import copy
import re
from typing import Any

import pytest
import torch
import transformers
from datasets import Dataset

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Healed, Schedule, TrainingData, registry
from depthprune.healing.recipe import heal, parse_recipe, resolve
from depthprune.healing.repair.ends import end_of, last_linear, writers
from depthprune.plan import LayerPlan
from depthprune.specs import HealSpec
from depthprune.surgery import drop_layers
from tiny_models import ARCHITECTURES, SIZES, VOCABULARY_SIZE, build, tiny_model, tiny_tokenizer

DEPTH = 5
PLAN = LayerPlan(DEPTH, (1, 3))
MORE = {
    "MPNet": SIZES,
    "Llama": {**SIZES, "num_key_value_heads": 1},
    "GPT2": {"vocab_size": VOCABULARY_SIZE, "n_embd": 16, "n_head": 2, "n_positions": 40},
    "Gemma2": {**SIZES, "num_key_value_heads": 1, "head_dim": 8},
    "Albert": {**SIZES, "embedding_size": 8},
}
# Kind → the linear module that takes the map, the norm that makes the layer's output, and what writes into a sum.
ENDS = {
    "bert": ("output.dense", "output.LayerNorm", None),
    "roberta": ("output.dense", "output.LayerNorm", None),
    "MPNet": ("output.dense", "output.LayerNorm", None),
    "distilbert": ("ffn.lin2", "output_layer_norm", None),
    "xlnet": ("ff.layer_2", "ff.layer_norm", None),
    "Llama": ("mlp.down_proj", None, ["self_attn.o_proj", "mlp.down_proj"]),
    "GPT2": ("mlp.c_proj", None, ["attn.c_proj", "mlp.c_proj"]),
    "modernbert": ("mlp.Wo", None, ["attn.Wo", "mlp.Wo"]),
}


def model_of(kind: str, depth: int = DEPTH):
    if kind in ARCHITECTURES:
        return tiny_model(kind, depth=depth)
    config = getattr(transformers, f"{kind}Config")(**{"num_hidden_layers": depth, "pad_token_id": 0, **MORE[kind]})
    return build(getattr(transformers, f"{kind}Model"), config)


def data(count: int = 60) -> TrainingData:
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(5, VOCABULARY_SIZE, (4 + i % 3,), generator=generator).tolist() for i in range(count)]
    columns = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "length": [len(row) for row in ids]}
    return TrainingData(Dataset.from_dict(columns), tiny_tokenizer())


def repaired(
    name: str, model, plan: LayerPlan = PLAN, rows: TrainingData | None = None, teacher=None, cut=None, **more
):
    """Repair a copy of a model, or a model that was cut already."""
    part = registry.get(name)
    assert part.options is not None
    model = copy.deepcopy(model)
    options = part.options(**more)
    rows = data() if rows is None else rows
    cut = cut or Cut(plan)
    return part.function(model, rows, options, schedule=Schedule(), seed=0, cut=cut, teacher=teacher)


class Taught:
    """A teacher in memory."""

    identity, pooling = "sha256:full", ("mean",)

    def __init__(self, model):
        self._model = model

    def model(self):
        return self._model


def layers_of(model) -> list[Any]:
    depth = model.config.num_hidden_layers
    return Cut(LayerPlan(depth, ())).modules(model, range(depth))


def batch() -> dict[str, torch.Tensor]:
    ids = torch.tensor(data(4).rows[:]["input_ids"][0:1])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def last_states(model) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch())[0]


def seen(model, module, *, entering: bool = False) -> torch.Tensor:
    """All vectors [N, D] that enter or leave a module on the calibration rows, row by row."""
    found = []

    def note(_, args, output):
        states = args[0] if entering else output
        found.append((states[0] if isinstance(states, tuple) else states).flatten(0, 1).double())

    handle = module.register_forward_hook(note)
    with torch.no_grad():
        for ids in data().rows["input_ids"][:]:
            model(input_ids=torch.tensor([ids]))
    handle.remove()
    return torch.cat(found)


@pytest.mark.parametrize("kind", ENDS)
def test_the_end_of_a_layer_is_found_by_running_it(kind):
    linear, norm, terms = ENDS[kind]
    model = model_of(kind, depth=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layer = layers_of(model)[1]
    with torch.no_grad():
        end = end_of(model, layer, batch())
        assert end.norm is (layer.get_submodule(norm) if norm else None)
        assert last_linear(model, end, batch()) == linear
        assert terms is None or writers(model, end, batch()) == terms
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", ["bert", "distilbert", "MPNet", "roberta", "xlnet", "Llama", "GPT2"])
def test_a_linear_patch_is_the_least_squares_map_applied_by_a_hook(kind):
    linear_name, norm_name, _ = ENDS[kind]
    full, cut = model_of(kind), drop_layers(model_of(kind), [3])
    linear = layers_of(cut)[2].get_submodule(linear_name)
    gone = layers_of(full)[3]
    if norm_name:
        norm = layers_of(cut)[2].get_submodule(norm_name)
        gone_norm = gone.get_submodule(norm_name)
        total, wanted = seen(cut, norm, entering=True), seen(full, gone_norm, entering=True)
    else:
        total, wanted = seen(cut, layers_of(cut)[2]), seen(full, gone)
    term = seen(cut, linear)
    weight = wanted.std(-1, keepdim=True) ** -1 if norm_name else torch.ones(len(wanted), 1)
    has_offset = linear.bias is not None if hasattr(linear, "bias") else False
    columns = torch.cat([term, torch.ones(len(term), 1)], 1) if has_offset else term
    solution = torch.linalg.lstsq(columns * weight, (wanted - total + term) * weight).solution.float()
    assert not torch.allclose(solution[:16], torch.eye(16), atol=0.1)

    offset = solution[16] if has_offset else 0
    linear.register_forward_hook(lambda module, args, output: output @ solution[:16] + offset)
    if norm_name:
        norm.register_forward_hook(lambda module, args, output: gone_norm(args[0]))
    healed = repaired("linear-patch", full, LayerPlan(DEPTH, (3,)), examples=60, ridge=0.0)

    torch.testing.assert_close(last_states(healed.model), last_states(cut), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(last_states(healed.model), last_states(drop_layers(full, [3])), atol=1e-2)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "MPNet", "roberta", "xlnet", "Llama", "GPT2", "modernbert"])
@pytest.mark.parametrize("gone", [1, 4])
def test_a_compensation_is_the_ratio_of_the_magnitudes_applied_by_a_hook(kind, gone):
    full = model_of(kind)
    cut = drop_layers(copy.deepcopy(full), [gone])
    before = layers_of(cut)[gone - 1]
    ratio = seen(full, layers_of(full)[gone]).abs().mean() / seen(cut, before).abs().mean()
    assert abs(ratio - 1) > 1e-3

    def scale(module, args, output):
        return output * ratio.float() if torch.is_tensor(output) else (output[0] * ratio.float(), *output[1:])

    healed = repaired("compensate", full, LayerPlan(DEPTH, (gone,)), examples=60)
    plain = last_states(cut)
    before.register_forward_hook(scale)
    torch.testing.assert_close(last_states(healed.model), last_states(cut), rtol=1e-3, atol=1e-4)
    without_effect = gone == 4 and ENDS[kind][1] is None
    assert torch.allclose(last_states(healed.model), plain, atol=1e-3) == without_effect
    assert ("without effect" in healed.notes[0]) == without_effect


def test_every_gap_is_compensated_from_the_states_of_the_model_that_is_compensated_so_far():
    full = model_of("Llama")
    cut = drop_layers(copy.deepcopy(full), PLAN.dropped)
    layers, handles = layers_of(cut), []
    for before, gone in ((0, 1), (1, 3)):
        ratio = seen(full, layers_of(full)[gone]).abs().mean() / seen(cut, layers[before]).abs().mean()
        scale = lambda module, args, output, ratio=ratio: output * ratio.float()  # noqa: E731
        handles.append(layers[before].register_forward_hook(scale))
    healed = repaired("compensate", full, examples=60)
    torch.testing.assert_close(last_states(healed.model), last_states(cut), rtol=1e-3, atol=1e-4)
    assert len(healed.notes) == 2


def test_each_dimension_of_a_post_norm_model_can_have_a_scale_and_an_offset():
    full = model_of("bert")
    cut = drop_layers(copy.deepcopy(full), [2])
    have, wanted = seen(cut, layers_of(cut)[1]), seen(full, layers_of(full)[2])
    scale = ((have - have.mean(0)) * (wanted - wanted.mean(0))).mean(0) / have.var(0, correction=0)
    offset = wanted.mean(0) - scale * have.mean(0)
    layers_of(cut)[1].register_forward_hook(lambda module, args, output: output * scale.float() + offset.float())
    healed = repaired("compensate", full, LayerPlan(DEPTH, (2,)), examples=60, per_dimension=True)
    torch.testing.assert_close(last_states(healed.model), last_states(cut), rtol=1e-4, atol=1e-5)


def test_layers_are_merged_into_the_one_before_each_gap():
    full = model_of("bert")
    old, plan = [layer.state_dict() for layer in layers_of(full)], LayerPlan(DEPTH, (1, 2, 4))
    new = [layer.state_dict() for layer in layers_of(repaired("merge", full, plan).model)]
    assert len(new) == 2
    for name, weight in new[0].items():
        torch.testing.assert_close(weight, old[0][name] + (old[1][name] - old[0][name]) + (old[2][name] - old[0][name]))
        torch.testing.assert_close(new[1][name], old[4][name])
    mean = layers_of(repaired("merge", full, plan, weight=1 / 3).model)[0].state_dict()
    torch.testing.assert_close(mean["output.dense.weight"], sum(old[i]["output.dense.weight"] for i in (0, 1, 2)) / 3)


@pytest.mark.parametrize("kind", ["bert", "Llama"])
def test_a_linear_patch_brings_the_states_nearer_to_those_of_the_full_model_at_every_gap(kind):
    notes = repaired("linear-patch", model_of(kind)).notes
    errors = [[float(number) for number in re.findall(r"\d\.\d+", note)] for note in notes]
    assert len(errors) == 2 and all(0 <= after < before for before, after in errors), notes


def test_a_gap_at_the_beginning_is_compensated_in_the_embeddings_norm_or_by_what_follows():
    for kind in ("bert", "Llama"):
        full = model_of(kind)
        cut = drop_layers(copy.deepcopy(full), [0])
        first = layers_of(cut)[0]
        ratio = seen(full, layers_of(full)[0]).abs().mean() / seen(cut, first, entering=True).abs().mean()
        first.register_forward_pre_hook(lambda module, args, ratio=ratio: (args[0] * ratio.float(), *args[1:]))
        healed = repaired("compensate", full, LayerPlan(DEPTH, (0,)), examples=60)
        torch.testing.assert_close(last_states(healed.model), last_states(cut), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["linear-patch", "merge"])
def test_a_gap_at_the_beginning_is_left_and_noted_and_alone_refused(name):
    healed = repaired(name, model_of("bert"), LayerPlan(DEPTH, (0, 3)))
    assert len(healed.notes) == 2 and f"{name}: layer 0 had no layer before" in healed.notes[0]
    with pytest.raises(UserError, match="folds the work of layers 0-1 into the layer before, and there is none"):
        repaired(name, model_of("bert"), LayerPlan(DEPTH, (0, 1)))


@pytest.mark.parametrize("name", ["linear-patch", "compensate", "merge"])
def test_a_model_that_was_cut_already_is_repaired_beside_its_teacher(name):
    full = model_of("bert")

    student, cut = drop_layers(copy.deepcopy(full), PLAN), Cut(PLAN, done=True)
    there = repaired(name, student, teacher=Taught(full), cut=cut)
    torch.testing.assert_close(last_states(there.model), last_states(repaired(name, full).model))
    with pytest.raises(UserError, match=f"'{name}' compares the cut model with the full one, and the layers have gone"):
        repaired(name, student, cut=cut)


@pytest.mark.parametrize(
    "name, kind, plan, message, more",
    [
        ("linear-patch", "Gemma2", (2,), "cannot fold a map into layer 1 .*: its output has no term", {}),
        ("compensate", "Gemma2", (2,), "cannot be folded into layer 3 .*: no linear module writes into its sum", {}),
        ("compensate", "Llama", (2,), "leave per_dimension out", {"per_dimension": True}),
        ("merge", "modernbert", (1,), "cannot add layer 1 to layer 0: they differ in 'attn_norm.weight'", {}),
        ("merge", "Albert", (4,), "layers that are one module each, and those of 'albert' are not", {}),
    ],
)
def test_a_model_that_a_method_cannot_take_is_refused_with_the_reason(name, kind, plan, message, more):
    with pytest.raises(UserError, match=message):
        repaired(name, model_of(kind), LayerPlan(DEPTH, plan), **more)


@pytest.mark.parametrize("name", ["linear-patch", "compensate"])
def test_rows_to_calibrate_on_are_needed(name):
    none = TrainingData(data().rows.select([]), tiny_tokenizer())
    with pytest.raises(UserError, match=f"'{name}' needs rows to calibrate on, and there are none"):
        repaired(name, model_of("bert"), rows=none)


def test_states_that_are_not_finite_and_too_few_rows_are_refused():
    broken = model_of("bert")
    layers_of(broken)[0].output.dense.bias.data[0] = torch.nan
    for name in ("linear-patch", "compensate"):
        with pytest.raises(UserError, match="are not finite; load the model in float32"):
            repaired(name, broken)
    with pytest.raises(UserError, match="do not determine a map of 16 dimensions; give more examples"):
        repaired("linear-patch", model_of("Llama"), examples=1, ridge=0.0)


def test_options_that_cannot_be_are_refused():
    for text in ("linear-patch(examples=0)", "linear-patch(ridge=-1)", "compensate(examples=0)"):
        with pytest.raises(UserError, match="examples of"):
            resolve(HealSpec(steps=parse_recipe(text)))


def test_a_cut_of_which_nobody_knows_what_it_lacks_is_refused():
    student = drop_layers(model_of("bert"), [1])
    with pytest.raises(
        UserError, match="which of the teacher's 5 layers the model lacks, and the model's history does"
    ):
        repaired("merge", student, cut=Cut(LayerPlan(4, ())), teacher=Taught(model_of("bert")))


def test_a_full_model_is_left_as_it_is():
    for name in ("linear-patch", "compensate", "merge"):
        full = model_of("bert")
        healed = repaired(name, full, LayerPlan(DEPTH, ()))
        assert healed == Healed(healed.model) and torch.equal(last_states(healed.model), last_states(full))


def test_a_repair_after_another_is_refused_before_anything_is_done():
    with pytest.raises(UserError, match="'merge' drops all layers that are to go, and leaves none for 'compensate'"):
        resolve(HealSpec(num_epochs=0, steps=parse_recipe("merge+compensate")))


def test_a_recipe_repairs_a_model_that_was_cut_already_beside_its_teacher():
    full = model_of("bert")
    student, cut = drop_layers(copy.deepcopy(full), PLAN), Cut(PLAN, done=True)
    steps = resolve(HealSpec(num_epochs=0, steps=parse_recipe("linear-patch")))
    healed = heal(student, data(), steps, cut=cut, seed=0, teacher=Taught(full))
    torch.testing.assert_close(last_states(healed.model), last_states(repaired("linear-patch", full).model))
