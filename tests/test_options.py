"""A field that is defined is an option of the command, a key of a sweep's file, part of the digest and of a report."""

import shlex
from dataclasses import dataclass, replace
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from depthprune.cli.fields import Fields, given_entries, spread
from depthprune.cli.main import app
from depthprune.errors import UserError
from depthprune.experiments.sweeps.grid import parse_sweep
from depthprune.healing.recipe import parse_recipe, read_recipe
from depthprune.reporting.settings import _options, healing_words
from depthprune.specs import EvalSpec, Execution, HealSpec, RunSpec, Schedule
from depthprune.specs.options import LAYERS, Option, Switch, option, options_of
from depthprune.tasks import TaskOptions

SPEC = RunSpec("sha256:00", EvalSpec("mrpc", "sha256:01"))
GRID = {"models": "m", "tasks": "mrpc", "strategies": "top", "counts": 1}
# What else a recipe has to say where it says this.
NEEDED = {
    "teacher": {"steps": "distill"},
    "freeze_dropped": {"epochs_before": 1},
    "patience": {"validation_fraction": 0.1},
    "unlabelled": {"steps": "distill"},
    "unlabelled_rows": {"steps": "distill", "unlabelled": "rows.csv"},
}
TEXTS = {
    "steps": "two-step",
    "teacher": "full",
    "precision": "float32",
    "kind": "regression",
    "metric": "f1",
    "head": "mean",
}


def other(item: Option) -> str:
    """Return a value that is not the default, as a person writes it."""
    if item.name in TEXTS:
        return TEXTS[item.name]
    return {bool: "true", int: "4", float: "0.5", LAYERS: "0-2", tuple[str, ...]: "a,b"}.get(item.kind, "something")


def help_of(name: str) -> str:
    return CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300"}).output


def arguments(item: Option) -> list[str]:
    """Return how the command line gives an option its other value."""
    if item.about.switches:
        return [next(switch.flag for switch in item.about.switches if switch.value == other(item))]
    return [item.flag] if item.kind is bool else [item.flag, other(item)]


@dataclass(frozen=True)
class LaterSpec(HealSpec):
    """HealSpec, some releases from now."""

    patience: int = option(0, "Epochs without progress after which training stops.", minimum=0, later=True)


def recipes_of_a_command(kind: type[HealSpec], *words: str) -> tuple[list[HealSpec], str]:
    """Return what a command that takes a recipe is given, and what it prints."""
    got: list[HealSpec] = []

    def command(heal: Annotated[kind, Fields()] = kind()) -> None:  # pyright: ignore[reportInvalidTypeForm]
        got.append(heal)

    small = typer.Typer(rich_markup_mode=None)
    small.command()(spread(command))
    result = CliRunner().invoke(small, words, env={"COLUMNS": "300"})
    if isinstance(result.exception, UserError):
        raise result.exception
    return got, result.output


def test_a_field_that_is_added_to_the_definition_is_everywhere_and_changes_no_old_digest():
    _, shown = recipes_of_a_command(LaterSpec, "--help")
    assert "--patience" in shown and "Epochs without progress after which training stops." in " ".join(shown.split())
    (heal,), _ = recipes_of_a_command(LaterSpec, "--patience", "3")
    assert heal == LaterSpec(patience=3) == read_recipe({"patience": 3}, kind=LaterSpec)
    assert healing_words(HealSpec()) == healing_words(LaterSpec())
    assert replace(SPEC, heal=LaterSpec()).digest() == SPEC.digest() != replace(SPEC, heal=heal).digest()
    with pytest.raises(UserError, match="patience is a whole number, not 'long'"):
        read_recipe({"patience": "long"}, kind=LaterSpec)
    with pytest.raises(UserError, match="no entry of a recipe is named 'patiens'; did you mean 'patience'"):
        read_recipe({"patiens": 3}, kind=LaterSpec)
    with pytest.raises(UserError, match="patience -1 is out of range: it is 0 or more"):
        LaterSpec(patience=-1).check()


@pytest.mark.parametrize("name", options_of(HealSpec))
def test_an_entry_of_a_recipe_is_an_option_a_key_of_a_sweep_and_in_the_digest_where_it_is_not_the_default(name):
    item = options_of(HealSpec)[name]
    (heal,), _ = recipes_of_a_command(HealSpec, *arguments(item))
    assert set(given_entries(heal)) == {name}
    for command in "run", "auto", "sweep":
        assert f"  {item.flag} " in help_of(command)
    assert f"  {item.flag:<22} {name:<20} {item.about.help}\n" in CliRunner().invoke(app, ["list"]).output
    grid = parse_sweep({**GRID, "heal": {**NEEDED.get(name, {}), name: other(item)}})
    if name == "teacher":
        assert grid.teacher_of("default", "mrpc") == "full"
    else:
        assert getattr(grid.heal["default"], name) == getattr(heal, name)
    digests = {replace(SPEC, heal=replace(heal, **{name: item.default})).digest(), SPEC.digest()}
    assert len(digests) == 1 and replace(SPEC, heal=heal).digest() not in digests


@pytest.mark.parametrize("name", options_of(TaskOptions))
def test_what_is_said_of_a_tasks_data_is_an_option_and_a_key_of_a_sweep(name):
    item = options_of(TaskOptions)[name]
    grid = parse_sweep({**GRID, name: other(item)})
    assert set(given_entries(grid.options)) == {name}
    for command in "run", "auto", "sweep", "finetune", "evaluate":
        assert f"  {arguments(item)[0]} " in help_of(command)


@pytest.mark.parametrize("name", options_of(Execution))
def test_how_a_training_is_carried_out_is_an_option_of_every_command_that_trains_and_in_no_digest(name):
    item = options_of(Execution)[name]
    for command in "run", "auto", "sweep", "finetune", "heal":
        assert f"  {item.flag.partition('/')[0]} " in help_of(command)
    with pytest.raises(UserError, match=f"no entry .* is named '{name}'"):
        parse_sweep({**GRID, "heal": {name: other(item)}})


def test_the_command_that_repeats_a_run_gives_the_same_recipe():
    schedule = {name: item.read(other(item)) for name, item in options_of(Schedule).items()}
    heal = HealSpec(**schedule, freeze_layers=(0, 2), freeze_embeddings=True, epochs_before=1.5)
    for recipe in heal, HealSpec(), HealSpec(steps=parse_recipe("freeze(layers=0-1)+two-step"), teacher="TEACHER",
                                            unlabelled=("UNLABELLED",), unlabelled_rows=9):  # fmt: skip
        (again,), _ = recipes_of_a_command(HealSpec, *shlex.split(_options(recipe, EvalSpec.max_length)))
        assert again == recipe


def test_an_option_out_of_its_bounds_is_named_as_it_was_written():
    with pytest.raises(UserError, match=r"^--learning-rate 3 is out of range: it is between 0 and 1; 2e-5 to 5e-4 are"):
        recipes_of_a_command(HealSpec, "--learning-rate", "3")
    with pytest.raises(
        UserError, match=r"^there is no precision 'float16'; did you mean 'bfloat16'\? It is one of auto"
    ):
        recipes_of_a_command(HealSpec, "--precision", "float16")
    with pytest.raises(UserError, match=r"^--freeze-layers: 'a' is not a list of layers"):
        recipes_of_a_command(HealSpec, "--freeze-layers", "a")


def test_a_command_with_defaults_of_its_own_gets_what_was_given():
    got = []

    def command(training: Annotated[dict, Fields(given=Schedule)] = {}) -> None:  # noqa: B006
        got.append(training)

    small = typer.Typer(rich_markup_mode=None)
    small.command()(spread(command))
    for words in [], ["--epochs", "3", "--similar-lengths"]:
        assert CliRunner().invoke(small, words).exit_code == 0
    assert got == [{}, {"num_epochs": 3.0, "similar_lengths": True}]
    shown = help_of("heal")
    assert all(f"  {item.flag} " in shown for item in options_of(Schedule).values()) and "[default: 3" not in shown


def test_two_switches_of_one_option_exclude_each_other():
    @dataclass(frozen=True)
    class Kinds:
        kind: str | None = option(None, "", switches=(Switch("--one", "a", "One."), Switch("--other", "b", "Other.")))

    seen = []

    def command(kinds: Annotated[Kinds, Fields()] = Kinds()) -> None:
        seen.append(kinds)

    small = typer.Typer()
    small.command()(spread(command))
    for words in ["--other"], []:
        assert CliRunner().invoke(small, words).exit_code == 0
    assert seen == [Kinds("b"), Kinds()]
    both = CliRunner().invoke(small, ["--one", "--other"])
    assert isinstance(both.exception, UserError) and str(both.exception).startswith("--one and --other exclude")
