"""Runs with a head on pooled states: trained, saved, scored, cut, healed and taught by one of the same kind."""

import json
import shutil
from pathlib import Path

import pytest

from depthprune.checkpoints.drop import drop_checkpoint
from depthprune.errors import LoadError, UserError
from depthprune.experiments.comparison import compare
from depthprune.experiments.evaluate import evaluate
from depthprune.experiments.healed.heal import heal as heal_cut
from depthprune.experiments.inspect import inspect
from depthprune.experiments.specification import make_spec
from depthprune.healing.recipe import parse_recipe
from depthprune.loading import load_tokenizer
from depthprune.plan import LayerPlan
from depthprune.sources import locate
from depthprune.specs import HealSpec, RunSpec, run_spec_of
from depthprune.tasks import TaskOptions, load_task
from depthprune.tasks.heads import fit_to_head
from tiny_models import tiny_checkpoint, tiny_decoder, words

SCHEDULE = {"num_epochs": 4, "batch_size": 8, "learning_rate": 1e-2, "precision": "float32"}


def heal_spec(recipe: str | None = None, **more) -> HealSpec:
    return HealSpec(**{**SCHEDULE, **more}, steps=parse_recipe(recipe) if recipe else ())


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A model, rows, and a run with a pooled head that a full model has taught."""
    folder = tmp_path_factory.mktemp("pooled")
    tiny_checkpoint(folder / "model", "bert", "base", 3)
    lines = words(160 * 2, line=2).splitlines()[:160]
    rows = "".join(f"{('ba ' * 4, 'so ' * 4)[i % 2]}{line},{('no', 'yes')[i % 2]}\n" for i, line in enumerate(lines))
    (folder / "rows.csv").write_text("text,label\n" + rows)
    return folder


def options_of(folder: Path) -> TaskOptions:
    return TaskOptions(str(folder / "rows.csv"), ("text",), "label")


def compared(here: Path, model: Path | None = None, *, heal: HealSpec, store: Path | None = None, **more):
    how = {"options": options_of(here), "max_length": 16, "seed": 1, "device": "cpu", "profile": False}
    where = store or here / "runs"
    return compare(str(model or here / "model"), "custom", heal=heal, store=where, **{"layers": "1", **how, **more})


@pytest.fixture(scope="module")
def taught(here):
    return compared(here, heal=heal_spec("patient-kd", head="mean"))


def test_the_full_model_has_the_same_head_and_teaches(taught):
    assert taught.full.record["spec"]["heal"]["head"] == taught.pruned.record["spec"]["heal"]["head"] == "mean"
    assert taught.full.outcome["heal"]["steps"] and taught.full.score > 0.8, "it learned the task"
    config = json.loads((taught.pruned.model / "config.json").read_text())
    assert config["pooled_head"] == "mean" and config["architectures"] == ["BertModel"]
    assert config["id2label"] == {"0": "no", "1": "yes"}


def test_its_checkpoint_scores_what_the_run_says(here, taught):
    scored = evaluate(taught.full.model, "custom", options=options_of(here), max_length=16)
    assert scored.metrics["accuracy"].examples == 160 and scored.score > 0.8
    assert any("labels matched with the head's outputs by name" in note for note in scored.notes)


def test_inspect_names_its_outputs(taught):
    found = inspect(taught.pruned.model)
    assert (found.head, found.outputs, found.stacks[0].depth) == ("mean", ("no", "yes"), 2)


def test_it_counts_as_fine_tuned_and_its_cut_is_healed(here, taught, tmp_path):
    model = shutil.copytree(taught.full.model, tmp_path / "model")
    again = compared(here, model, heal=heal_spec("theseus"), store=tmp_path / "runs")
    assert again.full.outcome["heal"]["steps"] == 0 and again.full.score == taught.full.score
    assert again.pruned.record["spec"]["heal"]["fine_tuned"] is True
    cut = drop_checkpoint(model, tmp_path / "cut", [1]).path
    how = {"task": "custom", "options": options_of(here), "max_length": 16, "device": "cpu"}
    done = heal_cut(cut, model, tmp_path / "healed", recipe=heal_spec("patient-kd"), **how)
    assert list(done.scores) == ["full", "cut", "healed"]
    assert evaluate(done.path, "custom", options=options_of(here), max_length=16).score > 0
    texts = heal_cut(cut, model, tmp_path / "texts", data=str(here / "rows.csv"), held_out=8,
                     recipe=heal_spec("hidden-kd"), max_length=16, device="cpu")  # fmt: skip
    assert locate(texts.path).config["pooled_head"] == "mean"


def test_asking_for_the_head_that_a_model_has_is_the_same_run(here, taught):
    source, data = locate(taught.full.model), load_task("custom", options_of(here))
    how = {"max_length": 16, "seed": 1}
    specs = [
        make_spec(source, data, LayerPlan(3, (1,)), heal=heal_spec(head=head), **how)
        for head in ("architecture", "mean", "pooling", "cls")
    ]
    assert specs[0] == specs[1] == specs[2] != specs[3]
    assert specs[3].heal.head == "cls"


def test_a_head_is_part_of_a_runs_name_only_where_it_is_not_the_architectures(here):
    spec = make_spec(
        *(locate(here / "model"), load_task("custom", options_of(here)), LayerPlan(3, (1,))),
        heal=heal_spec(head="pooling"),
        max_length=16,
        seed=1,
    )
    assert spec.heal.head == "mean", "a folder that says nothing"
    assert run_spec_of(spec.to_dict()) == spec
    plain = RunSpec(spec.model, spec.evaluation, spec.drop, heal_spec(), 1)
    old = plain.to_dict()
    del old["heal"]["head"]
    assert run_spec_of(old).digest() == plain.digest() != spec.digest()


def test_a_searched_cut_is_chosen_by_the_heads_own_output(here, taught, tmp_path):
    found = compared(here, taught.full.model, heal=heal_spec("distill"), layers=None, strategy="greedy", count=1,
                     store=tmp_path / "runs")  # fmt: skip
    assert found.pruned.record["spec"]["heal"]["fine_tuned"] is True
    (scores,) = (tmp_path / "runs" / "scores").glob("search-*.json")
    assert json.loads(scores.read_text())["model"]["weights"] == "fine-tuned"


def test_what_cannot_have_the_head_is_refused_in_a_line(here, taught, tmp_path):
    classifier = tiny_checkpoint(tmp_path / "classifier", "bert", "classification", 3)
    with pytest.raises(UserError, match=r"the head of the teacher .* reads what its architecture says, and that of"):
        compared(here, heal=heal_spec("distill", head="mean"), teacher=classifier, store=tmp_path / "runs")
    with pytest.raises(UserError, match=r"reads states pooled by mean, .*; give --head mean, or a teacher"):
        compared(here, heal=heal_spec("distill"), teacher=taught.full.model, store=tmp_path / "runs")
    with pytest.raises(UserError, match=r"^there is no head 'meen'; did you mean 'mean'\?"):
        compared(here, heal=heal_spec(head="meen"), store=tmp_path / "runs")
    (tmp_path / "text.txt").write_text(words(4000))
    language = load_task("language-modelling", TaskOptions(str(tmp_path / "text.txt")))
    decoder = locate(tiny_decoder(tmp_path / "decoder"))
    with pytest.raises(UserError, match=r"neither a classification nor a regression, .*; leave --head out"):
        make_spec(decoder, language, LayerPlan(4, (1,)), heal=heal_spec(head="mean"), max_length=16, seed=1)
    assert load_tokenizer(decoder)


@pytest.mark.parametrize("way", ["weightedmean", "some_new_way", "mean,max"])
def test_a_pooling_that_no_head_reads_is_refused(way, here, tmp_path):
    folder = shutil.copytree(here / "model", tmp_path / "model")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": way.split(",")}))
    (folder / "modules.json").write_text(json.dumps([{"path": "1_Pooling", "type": "x.Pooling"}]))
    with pytest.raises(LoadError, match="pools by "):
        compared(here, folder, heal=heal_spec(head="pooling"), store=tmp_path / "runs")
    data = load_task("custom", options_of(here))
    spec = make_spec(locate(folder), data, LayerPlan(3, (1,)), heal=heal_spec(head="cls"), max_length=16, seed=1)
    assert spec.heal.head == "cls" and fit_to_head(data, {}, "m", head="cls").task.head == "cls"
