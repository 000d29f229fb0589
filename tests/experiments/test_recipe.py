"""The paper's other ways to heal: fine-tuned first, dropped one by one, parts that learn nothing."""

import copy
import dataclasses

import pytest
import torch
from transformers import GPT2Config, GPT2Model, set_seed

from depthprune.errors import PlanError, UserError
from depthprune.experiments.run import run
from depthprune.experiments.store.store import Store
from depthprune.experiments.sweeps.expansion import expand
from depthprune.experiments.sweeps.grid import parse_sweep
from depthprune.healing.base import Cut, HealReport, Schedule, TrainingData
from depthprune.healing.methods.freeze import embedding_modules
from depthprune.healing.methods.gradual import GradualOptions, drop_steps
from depthprune.healing.recipe import heal, resolve, together
from depthprune.healing.training import train
from depthprune.loading import load_classifier, load_tokenizer
from depthprune.plan import LayerPlan
from depthprune.sources import locate
from depthprune.specs import HealSpec
from depthprune.strategies import removal_order
from depthprune.surgery import drop_layers
from depthprune.tasks import TaskOptions, load_task
from depthprune.tasks.data.encoding import encode
from tiny_models import tiny_checkpoint, tiny_model, words

ROWS = 80


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    tiny_checkpoint(folder / "model", "bert", "base", 4)
    lines = words(ROWS * 6, line=6).splitlines()[:ROWS]
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{line},{i % 2}\n" for i, line in enumerate(lines)))
    return folder


@pytest.fixture(scope="module")
def prepared(here):
    source = locate(str(here / "model"))
    data = load_task("custom", TaskOptions(str(here / "rows.csv"), ("text",), "label"))
    tokenizer = load_tokenizer(source)
    return source, tokenizer, encode(data, tokenizer, 16)["train"]


class Trace:
    """Carries out the steps of a recipe, and notes the depth of the model at each optimiser step and what learned."""

    def __init__(self):
        self.trainings, self.depths = [], []

    def traced(self, step):
        def function(model, data, options, *, schedule, on_step, **more):
            before = {name: value.clone() for name, value in model.state_dict().items()}
            depths = []
            noted = lambda done, total: depths.append(model.config.num_hidden_layers)  # noqa: E731
            healed = step.healer.function(model, data, options, schedule=schedule, on_step=noted, **more)
            after = healed.model.state_dict()
            learned = {name for name in after if name in before and not torch.equal(before[name], after[name])}
            if healed.trainings:
                self.depths.append(depths)
                self.trainings.append((schedule.num_epochs, learned))
            return healed

        return dataclasses.replace(step, healer=dataclasses.replace(step.healer, function=function))


def heal_with(prepared, spec, dropped, order=()):
    source, tokenizer, rows = prepared
    model, _ = load_classifier(source, 2)
    trace = Trace()
    spec = dataclasses.replace(spec, learning_rate=1e-3, precision="float32")
    steps = [trace.traced(step) for step in resolve(spec)]
    healed = heal(model, TrainingData(rows, tokenizer), steps, cut=Cut(LayerPlan(4, dropped), order), seed=42)
    assert healed.model is model and not any("requires_grad" in name for name in vars(model))
    assert all(parameter.requires_grad for parameter in model.parameters()), "nothing stays frozen"
    return model, trace, healed.trainings


def test_the_plain_recipe_drops_and_then_trains_once(prepared):
    _, trace, reports = heal_with(prepared, HealSpec(num_epochs=1, batch_size=16), (2, 3))
    assert len(reports) == 1 and set(trace.depths[0]) == {2}


def test_fine_tuned_first_trains_the_whole_model_and_then_what_is_left(prepared):
    heal = HealSpec(num_epochs=1, batch_size=16, epochs_before=2)
    model, trace, reports = heal_with(prepared, heal, (3,))
    steps = len(prepared[2]) // 16 + bool(len(prepared[2]) % 16)
    assert [epochs for epochs, _ in trace.trainings] == [2, 1]
    assert trace.depths == [[4] * 2 * steps, [3] * steps]
    assert any(".layer.3." in name for name in trace.trainings[0][1])
    assert together(reports).steps == 3 * steps and model.config.num_hidden_layers == 3
    assert together(reports).loss == reports[-1].loss


def test_the_layers_to_be_dropped_learn_nothing_in_the_first_training_if_asked(prepared):
    heal = HealSpec(num_epochs=1, batch_size=16, epochs_before=1, freeze_dropped=True)
    _, trace, _ = heal_with(prepared, heal, (1, 3))
    first, second = (names for _, names in trace.trainings)
    assert not any(f".layer.{i}." in name for i in (1, 3) for name in first)
    assert all(any(f".layer.{i}." in name for name in first) for i in (0, 2))
    assert any(".layer.1." in name for name in second), "what was layer 2 learns"


def test_without_epochs_the_cut_model_is_the_one_that_was_given(prepared):
    model, trace, reports = heal_with(prepared, HealSpec(num_epochs=0, batch_size=16), (3,))
    whole, _ = load_classifier(prepared[0], 2)
    cut = drop_layers(whole, LayerPlan(4, (3,))).state_dict()
    body = [name for name in cut if name.startswith("bert.") and "pooler" not in name]
    assert body and all(torch.equal(model.state_dict()[name], cut[name]) for name in body)
    assert trace.depths == [] and together(reports).steps == 0


def test_fine_tuned_first_and_then_only_dropped_has_one_training(prepared):
    heal = HealSpec(num_epochs=0, batch_size=16, epochs_before=1)
    _, trace, reports = heal_with(prepared, heal, (3,))
    assert [epochs for epochs, _ in trace.trainings] == [1]
    assert together(reports).loss is not None
    assert heal.for_full() == HealSpec(num_epochs=1, batch_size=16), "the full model learns as much"


def test_frozen_layers_are_those_of_the_model_that_was_given(prepared):
    heal = HealSpec(num_epochs=1, batch_size=16, freeze_layers=(0, 2), freeze_embeddings=True)
    _, trace, _ = heal_with(prepared, heal, (1,))
    ((_, learned),) = trace.trainings
    assert any(".layer.2." in name for name in learned), "layer 3 of the model that was given"
    assert not any(part in name for name in learned for part in (".layer.0.", ".layer.1.", "embeddings"))
    assert any(name.startswith("classifier") for name in learned)


def test_layers_go_one_by_one_in_the_order_of_the_strategy(prepared):
    heal = HealSpec(num_epochs=1, batch_size=16, drop_every_steps=2)
    steps = -(-len(prepared[2]) // 16)
    model, trace, _ = heal_with(prepared, heal, (0, 3), (3, 0))
    assert trace.depths == [[4, 3, 3, 2, *[2] * steps]], "noted after a layer has gone"
    assert model.config.num_hidden_layers == 2
    whole, _ = load_classifier(prepared[0], 2)
    kept = whole.bert.encoder.layer[1].attention.self.query.weight
    assert torch.nn.functional.cosine_similarity(model.bert.encoder.layer[0].attention.self.query.weight.flatten(),
                                                 kept.flatten(), dim=0) > 0.9  # fmt: skip


def test_a_layer_that_goes_within_a_training_leaves_what_dropping_it_before_leaves(prepared):
    source, tokenizer, rows = prepared
    set_seed(1)
    model, _ = load_classifier(source, 2)
    before = drop_layers(copy.deepcopy(model), LayerPlan(4, (1,)))
    train(model, TrainingData(rows, tokenizer), Schedule(1, 16, 1e-9, precision="float32"),
          events=[(2, lambda: drop_layers(model, LayerPlan(4, (1,))))])  # fmt: skip
    states = before.state_dict(), model.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.allclose(states[0][name], states[1][name], atol=1e-5) for name in states[0])


def test_when_layers_go_in_epochs_and_in_steps():
    schedule = Schedule(num_epochs=1, batch_size=16)
    assert drop_steps(GradualOptions(every=2), 3, 80, schedule) == ([10, 20, 30], 7.0)
    assert drop_steps(GradualOptions(every_steps=3), 1, 80, schedule) == ([3], 1.6)
    assert drop_steps(GradualOptions(every=0.001), 1, 80, schedule)[0] == [1]
    assert drop_steps(GradualOptions(), 2, 80, schedule)[0] == [5, 10]


@pytest.mark.parametrize(
    "name, plan, order",
    [
        ("top", (3, 4, 5), (5, 4, 3)),
        ("bottom", (0, 1, 2), (0, 1, 2)),
        ("symmetric", (1, 2, 3, 4), (3, 2, 4, 1)),
        ("odd-alternate", (0, 2, 4), (4, 2, 0)),
        (None, (0, 2, 4), (4, 2, 0)),
        ("contribution", (0, 2), (2, 0)),
    ],
)
def test_every_strategy_has_an_order(name, plan, order):
    assert removal_order(LayerPlan(6, plan), name) == order


@pytest.mark.parametrize(
    "values, message",
    [
        ({"drop_every": 1, "drop_every_steps": 3}, "give one of them"),
        ({"drop_every": 1, "epochs_before": 1}, "give one of them"),
        ({"freeze_dropped": True}, "needs epochs_before"),
        ({"num_epochs": -1}, "num_epochs -1 is out of range: it is 0 or more"),
        ({"drop_every": 1, "num_epochs": 0}, "give num_epochs above 0"),
        ({"epochs_before": -1}, "epochs_before -1 is out of range: it is 0 or more"),
        ({"freeze_layers": "2-x"}, "not a list of layers"),
        ({"epoch_before": 1}, "did you mean 'epochs_before'"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_with_its_reason(values, message):
    grid = {"models": "m", "tasks": "mrpc", "strategies": "top", "counts": 1, "heal": values}
    with pytest.raises(UserError, match=message):
        parse_sweep(grid)


def test_a_frozen_layer_that_does_not_exist_is_refused(prepared):
    with pytest.raises(PlanError, match="cannot freeze: layer 7 does not exist: the stack has layers 0 to 3"):
        heal_with(prepared, HealSpec(freeze_layers=(7,)), (1,))


def test_recipes_of_a_sweep_share_the_full_model_and_gradual_runs_know_their_order(here, tmp_path):
    recipes = [
        {"name": "plain", "num_epochs": 1},
        {"name": "first", "num_epochs": 1, "epochs_before": 1},
        {"name": "one by one", "num_epochs": 1, "drop_every": 0.5},
        {"name": "frozen", "num_epochs": 1, "freeze_layers": "0-1", "freeze_embeddings": True},
    ]
    more = {"dataset": str(here / "rows.csv"), "text_columns": "text", "label_column": "label", "heal": recipes}
    tiny_checkpoint(here / "other", "distilbert", "base", 2)
    grid = parse_sweep({"models": {"tiny": str(here / "model")}, "tasks": "custom", "strategies": ["top", "bottom"],
                        "counts": 2, "baselines": {"student": str(here / "other")}, **more})  # fmt: skip
    expansion = expand(grid, lambda *_: None)
    full = [job for job in expansion.jobs.values() if not job.spec.drop.dropped]
    assert len(full) == 2 * 2, "the recipes about dropping share one; frozen layers are another training"
    assert len(expansion.jobs) == 2 * 2 + 2 * 4
    orders = {job.spec.drop.dropped: job.spec.drop.order for job in expansion.jobs.values() if job.spec.drop.order}
    assert orders == {(2, 3): (3, 2), (0, 1): (0, 1)}
    baselines = [row for row in expansion.rows if row.strategy == "baseline"]
    assert {row.model for row in baselines} == {"student"} and len(baselines) == 4
    assert {row.model for row in expansion.rows if row not in baselines} == {"tiny"}


def test_runs_of_such_recipes_are_recorded_with_what_they_took(here, tmp_path):
    grid = {"models": str(here / "model"), "tasks": "custom", "strategies": "top", "counts": 1, "max_length": 16,
            "dataset": str(here / "rows.csv"), "text_columns": "text", "label_column": "label",
            "heal": [{"name": "first", "num_epochs": 1, "epochs_before": 0.5, "freeze_dropped": True},
                     {"name": "slowly", "num_epochs": 1, "drop_every": 0.5}]}  # fmt: skip
    expansion = expand(parse_sweep(grid), lambda *_: None)
    source = locate(str(here / "model"))
    data = load_task("custom", TaskOptions(str(here / "rows.csv"), ("text",), "label"))
    for job in expansion.jobs.values():
        result = run(source, data, job.spec, store=Store(tmp_path), save=bool(job.spec.drop.dropped))
        outcome = result.outcome
        assert outcome["profile"]["parameters"] <= outcome["profile"]["full_parameters"]
        if job.spec.drop.dropped:
            assert load_classifier(locate(str(result.model)), 2)[0].config.num_hidden_layers == 3
            assert outcome["profile"]["parameters"] < outcome["profile"]["full_parameters"]
            assert len(outcome["heal"].get("trainings", [0])) == (2 if job.spec.heal.epochs_before else 1)


def gpt2():
    return GPT2Model(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=50))


def test_embeddings_are_found_in_models_that_have_no_module_of_that_name():
    assert [type(m).__name__ for m in embedding_modules(tiny_model("bert"))] == ["BertEmbeddings"]
    assert len(embedding_modules(gpt2())) == 2, "tokens and positions"


def test_reports_are_put_together():
    first, last = HealReport(2.0, 10.0, 5, 0.9, "float32"), HealReport(3.0, 20.0, 6, 0.5, "float32")
    assert together([first, last]) == dataclasses.replace(last, seconds=5.0, steps=11, examples_per_second=16.0)
