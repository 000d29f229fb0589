"""What every healing method keeps to, and that nothing in a recipe is without effect."""

import dataclasses
from contextlib import contextmanager

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from depthprune.errors import PlanError, UserError
from depthprune.healing.base import Cut, Healed, PlannedStep, Schedule, healer, recipes, registry
from depthprune.healing.recipe import heal, parse_recipe, resolve, show
from depthprune.plan import LayerPlan
from depthprune.specs import EvalSpec, HealSpec, RunSpec, Step
from tiny_healing import Full, data
from tiny_models import tiny_model, tiny_tokenizer

PLAN = LayerPlan(3, (0, 2))
METHODS = registry.names()
QUICK = Schedule(num_epochs=1, batch_size=8, learning_rate=1e-3, precision="float32")
BASE = HealSpec(num_epochs=1, batch_size=8, learning_rate=1e-3, precision="float32")
# Another value for every entry of a recipe, beside those that it needs.
OTHER_ENTRIES = {
    "num_epochs": ({}, 2.0),
    "batch_size": ({}, 16),
    "learning_rate": ({}, 2e-3),
    "weight_decay": ({}, 0.5),
    "precision": ({}, "bfloat16"),
    "similar_lengths": ({}, True),
    "warmup": ({}, 0.5),
    "accumulation": ({}, 2),
    "validation_fraction": ({}, 0.25),
    "patience": ({"validation_fraction": 0.25, "num_epochs": 3.0}, 1),
    "epochs_before": ({}, 1.0),
    "freeze_dropped": ({"epochs_before": 1.0}, True),
    "drop_every": ({}, 1.0),
    "drop_every_steps": ({}, 2),
    "freeze_layers": ({}, (1,)),
    "freeze_embeddings": ({}, True),
    "steps": ({}, (Step("finetune"), Step("finetune"))),
}
REPAIRS = {"compensate", "linear-patch", "merge"}  # change the very layers that stay
# tests/experiments/test_teacher.py, test_pooled_head.py, test_transfer_set.py
ELSEWHERE = {"teacher", "fine_tuned", "head", "unlabelled", "unlabelled_rows"}
# Another value of every option of every method, in a recipe that ends in a training, and the options it needs.
OTHER_OPTIONS = {
    "distill": {
        "alpha": ("", "0.9"),
        "temperature": ("", "5"),
        "beta": ("", "1"),
        "tokens": ("beta=1", "all"),
        "normalise": ("beta=1", "true"),
        "states": ("beta=1", "last"),
        "mapping": ("beta=1", "even"),
        "lora_rank": ("", "4"),
        "gamma": ("", "100"),
    },
    "adaptive-layers": {
        "depths": ("", "2"),
        "order": ("", "1,0"),
        "weight": ("", "0.5"),
        "alpha": ("", "0.9"),
        "temperature": ("", "5"),
    },
    "layerdrop": {"rate": ("", "0.5")},
    "compensate": {"examples": ("", "4"), "per_dimension": ("", "true")},
    "linear-patch": {"examples": ("", "4"), "ridge": ("", "1")},
    "merge": {"weight": ("", "0.5")},
    "freeze": {
        "layers": ("", "0"),
        "embeddings": ("", "true"),
        "dropped": ("", "true"),
        "all_but_last": ("", "1"),
        "dropout": ("layers=1", "false"),
    },
    "embedding": {"pooled": ("", "0.5"), "states": ("", "0.5"), "dropout": ("", "true")},
    "gradual": {"every": ("", "2"), "every_steps": ("", "1")},
    "lora": {"rank": ("", "2"), "alpha": ("", "64"), "dropout": ("", "0.5"), "targets": ("", "query, key")},
    "replace": {"base": ("", "0.9"), "rise": ("", "0.5")},
}


def healed_by(recipe, seed: int = 0, on_step=None, teacher=Full(), plan: LayerPlan = PLAN) -> Healed:
    model = tiny_model("bert", "classification", depth=3)
    return heal(model, data(), recipe, cut=Cut(plan), seed=seed, teacher=teacher, on_step=on_step)


def weights(recipe, seed: int = 0) -> dict[str, torch.Tensor]:
    return healed_by(recipe, seed).model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def alone(name: str, **options) -> tuple[PlannedStep, ...]:
    """A recipe of one method, and of the drop where that does not drop."""
    return resolve(dataclasses.replace(BASE, steps=(Step(name, tuple(options.items())),)))


@contextmanager
def registered(name: str, **about):
    """A method that another package adds."""
    yield healer(name, **about)
    registry._parts.pop(name, None)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is_and_needs_no_options(name):
    part = registry.get(name)
    assert part.summary.endswith(".") and part.name == name
    if part.options is not None:
        assert dataclasses.is_dataclass(part.options()), "every option has a default"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_returns_a_plain_model(name, tmp_path):
    model = healed_by(alone(name)).model
    model.eval().save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(again) is type(model) and model.config.num_hidden_layers == len(PLAN.kept)
    batch = tiny_tokenizer().pad(data(4).rows.remove_columns(["length", "labels"])[:], return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, again(**batch).logits)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_leaves_what_is_frozen_as_it_is_or_says_that_it_changes_it(name):
    freeze = Step("freeze", (("embeddings", True), ("layers", (1,))))
    steps = (freeze, Step(name)) if registry.get(name).drops else (Step("drop"), freeze, Step(name))
    recipe = resolve(dataclasses.replace(BASE, steps=steps))
    if name in REPAIRS:
        with pytest.raises(UserError, match=f"'{name}' changes 'bert.*', which is frozen"):
            healed_by(recipe)
        return
    plan = LayerPlan(3, (0,))  # something is left to be trained
    after = healed_by(recipe, plan=plan).model.state_dict()
    before = healed_by(alone("drop"), plan=plan).model.state_dict()
    frozen = [key for key in after if ".embeddings." in key or ".layer.0." in key]
    assert len(frozen) > 10 and all(torch.equal(after[key], before[key]) for key in frozen)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_does_the_same_again_with_the_same_seed(name):
    assert same(weights(alone(name), seed=1), weights(alone(name), seed=1))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_tells_of_every_optimiser_step_and_reports_them(name):
    seen = []
    found = healed_by(alone(name), on_step=lambda done, total: seen.append((done, total)))
    assert len(seen) == sum(training.steps for training in found.trainings)
    assert not seen or seen[-1][0] == seen[-1][1]
    assert all(t.loss is not None and t.seconds > 0 and t.precision == "float32" for t in found.trainings)


def test_every_entry_of_a_recipe_changes_what_is_trained():
    assert set(OTHER_ENTRIES) | ELSEWHERE == {item.name for item in dataclasses.fields(HealSpec)}, "one was added"
    base: dict[str, dict[str, torch.Tensor]] = {}
    for name, (needed, value) in OTHER_ENTRIES.items():
        without = dataclasses.replace(BASE, **needed)
        if (key := repr(without)) not in base:
            base[key] = weights(resolve(without))
        assert not same(weights(resolve(dataclasses.replace(without, **{name: value}))), base[key]), name


def test_every_option_of_a_method_changes_what_is_trained():
    options = {name: {item.name for item in dataclasses.fields(part.options)}
               for name, part in registry.items() if part.options is not None}  # fmt: skip
    assert {name: set(values) for name, values in OTHER_OPTIONS.items()} == options, "one was added"
    recipe = {"freeze": "{}+finetune+drop+finetune"}
    base: dict[str, dict[str, torch.Tensor]] = {}

    def trained(name: str, inside: str):
        text = recipe.get(name, "{}").format(f"{name}({inside})" if inside else name)
        if text not in base:
            base[text] = weights(resolve(dataclasses.replace(BASE, steps=parse_recipe(text))))
        return base[text]

    for name, values in OTHER_OPTIONS.items():
        for option, (needed, value) in values.items():
            more = f"{needed}, {option}={value}" if needed else f"{option}={value}"
            assert not same(trained(name, more), trained(name, needed)), f"{option} of {name}"


def test_entries_of_older_recipes_train_what_the_steps_train_that_they_stand_for():
    for entries, text in [
        ({}, "finetune"),
        ({}, "drop+finetune"),
        ({"epochs_before": 1.0}, "two-step"),
        ({"epochs_before": 2.0, "freeze_dropped": True}, "freeze(dropped=true)+finetune(num_epochs=2)+drop+finetune"),
        ({"drop_every_steps": 2, "freeze_layers": (1,)}, "freeze(layers=1)+gradual(every_steps=2)"),
    ]:
        old, new = dataclasses.replace(BASE, **entries), dataclasses.replace(BASE, steps=parse_recipe(text))
        assert same(weights(resolve(old)), weights(resolve(new))), text


@pytest.mark.parametrize(
    "text, steps",
    [
        ("finetune", (Step("finetune"),)),
        (" freeze( layers = 0-1,3 , embeddings=true ) + finetune(num_epochs=2, learning_rate=2e-5)",
         (Step("freeze", (("embeddings", True), ("layers", (0, 1, 3)))),
          Step("finetune", (("learning_rate", 2e-5), ("num_epochs", 2.0))))),
        (["drop", {"method": "finetune", "num_epochs": 2}], (Step("drop"), Step("finetune", (("num_epochs", 2.0),)))),
        ([{"method": "freeze", "layers": [2, 1]}], (Step("freeze", (("layers", (1, 2)),)),)),
        ("two-step", (Step("finetune"), Step("drop"), Step("finetune"))),
    ],
)  # fmt: skip
def test_a_recipe_is_read_and_written(text, steps):
    assert parse_recipe(text) == steps
    assert parse_recipe(show(steps)) == steps
    assert parse_recipe([dataclasses.asdict(step) for step in steps]) == steps


@pytest.mark.parametrize(
    "text, message",
    [
        ("two-steps", "no healing method or recipe is named 'two-steps'; did you mean 'two-step'"),
        ("finetune(num_epoch=2)", "no option of 'finetune' is named 'num_epoch'; did you mean 'num_epochs'"),
        ("finetune(num_epochs=two)", "num_epochs of 'finetune' is a number, not 'two'"),
        ("freeze(embeddings=maybe)", "embeddings of 'freeze' is true or false, not 'maybe'"),
        ("freeze(layers=a)", "layers of 'freeze': "),
        ("finetune(2)", "'2' in 'finetune\\(2\\)' is not an option"),
        ("two-step(num_epochs=2)", "is a recipe and takes no options; write its steps out: finetune\\+drop\\+finetune"),
        ("finetune++finetune", "'' is not a step"),
        ("finetune(num_epochs=-1)", "'finetune\\(num_epochs=-1\\)': num_epochs -1 is out of range: it is 0 or more"),
        ("finetune(warmup=1)", "warmup 1 is out of range: it is 0 or more, and below 1"),
        ("finetune(patience=1)", "patience counts epochs .* it needs validation_fraction"),
        ("finetune(accumulation=3)", "a batch of 32 cannot be split into 3 parts"),
        ("gradual(every=1, every_steps=2)", "give one of them"),
        ([3], "3 is not a step"),
        ([{"name": "finetune"}], "is not a step"),
        ([{"method": "finetune", "num_epochs": [2]}], "num_epochs of 'finetune' is a number"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_with_its_reason(text, message):
    with pytest.raises(UserError, match=message):
        resolve(HealSpec(steps=parse_recipe(text)))


def test_steps_and_the_entries_they_replace_exclude_each_other():
    with pytest.raises(UserError, match="epochs_before and steps exclude each other; write it as a step: finetune"):
        HealSpec(epochs_before=1, steps=(Step("finetune"),)).check()


def test_what_is_written_as_a_step_in_place_of_an_entry_is_a_recipe():
    from depthprune.specs import AS_STEPS

    assert all(resolve(HealSpec(steps=parse_recipe(text))) for text in AS_STEPS.values())
    assert all(resolve(HealSpec(steps=recipe.steps)) for _, recipe in recipes.items())


def test_a_teacher_that_nothing_learns_from_is_refused():
    with pytest.raises(UserError, match="names a teacher, and none of its steps needs one"):
        resolve(HealSpec(teacher="sha256:00"))


def test_a_method_of_another_package_that_returns_something_else_is_named():
    with registered("broken") as register:
        register(lambda model, *_, **__: model)
        with pytest.raises(UserError, match=r"the healer 'broken' returned Bert.* instead of Healed"):
            healed_by(alone("broken"))


def test_a_method_that_needs_a_teacher_gets_one_or_says_so():
    with registered("imitate", needs_teacher=True) as register:
        seen = []
        register(lambda model, *_, teacher, **__: seen.append(teacher) or Healed(model))
        with pytest.raises(UserError, match="'imitate' needs a teacher"):
            healed_by(alone("imitate"), teacher=None)
        model = tiny_model("bert", "classification", depth=3)
        teacher = object()
        steps = resolve(dataclasses.replace(BASE, steps=parse_recipe("imitate+finetune")))
        heal(model, data(), steps, cut=Cut(PLAN), seed=0, teacher=teacher)  # pyright: ignore[reportArgumentType]
        assert seen == [teacher]


def test_a_recipe_that_leaves_a_layer_in_the_model_is_refused():
    with registered("forgetful", drops=True) as register:
        register(lambda model, *_, **__: Healed(model))
        with pytest.raises(UserError, match="leaves layer 2, which was to go"):
            healed_by(alone("forgetful"))


def test_a_layer_to_be_frozen_that_does_not_exist_is_refused_and_nothing_stays_frozen():
    model = tiny_model("bert", "classification", depth=3)
    steps = resolve(HealSpec(steps=parse_recipe("freeze(embeddings=true)+freeze(layers=7)")))
    with pytest.raises(PlanError, match="cannot freeze: layer 7 does not exist: the stack has layers 0 to 2"):
        heal(model, data(), steps, cut=Cut(PLAN), seed=0)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_cut_knows_its_layers_by_their_index_in_the_model_that_was_given():
    model, cut = tiny_model("bert", "classification", depth=3), Cut(PLAN, (0, 2))
    layers = list(model.bert.encoder.layer)
    assert cut.pending == (0, 2) and cut.modules(model, (2, 0)) == [layers[2], layers[0]]
    cut.drop(model, (0,))
    assert cut.pending == (2,) and cut.present == (1, 2) and cut.modules(model, (0, 1, 2)) == layers[1:]
    assert Cut(PLAN).pending == (2, 0)


def test_recipes_of_steps_are_compared_with_plain_fine_tuning():
    steps = parse_recipe("finetune(num_epochs=4)+drop")
    assert HealSpec(num_epochs=2, steps=steps).for_full() == HealSpec(num_epochs=2)
    assert HealSpec(num_epochs=0, steps=steps).for_full() == HealSpec(num_epochs=4) and HealSpec(0, steps=steps).trains
    spec = RunSpec("m", EvalSpec("mrpc", "d"))
    assert dataclasses.replace(spec, heal=HealSpec(steps=())).digest() == spec.digest()
