"""A run with rows without labels beside the task's own is another run; its full model never sees them."""

import json

import pytest

from depthprune.errors import UserError
from depthprune.experiments.comparison import compare
from depthprune.experiments.depths.curve import train_once
from depthprune.experiments.specification import make_spec
from depthprune.experiments.store.store import Store
from depthprune.experiments.sweeps.auto import plans_for
from depthprune.experiments.sweeps.executors.base import Outcome
from depthprune.experiments.sweeps.executors.base import registry as executors
from depthprune.experiments.sweeps.sweep import sweep
from depthprune.experiments.transfer_set import with_unlabelled
from depthprune.healing.recipe import parse_recipe
from depthprune.plan import LayerPlan
from depthprune.quiet import no_progress
from depthprune.sources import locate
from depthprune.specs import HealSpec
from depthprune.tasks import TaskOptions, load_task
from tiny_models import tiny_checkpoint, words

QUICK = {"num_epochs": 2.0, "batch_size": 8, "learning_rate": 1e-3, "precision": "float32"}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    tiny_checkpoint(folder / "model", "bert", "base", 3)
    lines = words(80 * 6, line=6).splitlines()
    rows = "".join(f"{line},{i % 2},{i / 9:.2f}\n" for i, line in enumerate(lines[:40]))
    (folder / "rows.csv").write_text("text,label,amount\n" + rows)
    (folder / "more.txt").write_text(
        "\n".join(line.upper() for line in lines)
    )  # all rows of the task, and forty others
    (folder / "other.txt").write_text("\n".join(lines[60:]))
    return folder


def heal(here, recipe: str = "logit-kd", **more) -> HealSpec:
    given = {"unlabelled": (str(here / "more.txt"),), **more}
    return HealSpec(**{**QUICK, "steps": parse_recipe(recipe), **given})  # pyright: ignore[reportArgumentType]


def how(here, store, label: str = "label") -> dict:
    options = TaskOptions(str(here / "rows.csv"), ("text",), label)
    return {"options": options, "max_length": 16, "seed": 1, "store": store, "device": "cpu", "profile": False}


def test_a_run_with_unlabelled_rows_is_another_run_and_its_full_model_the_same(here, tmp_path):
    model, said = str(here / "model"), []
    tell = lambda stage, done, total: said.append(stage)  # noqa: E731
    found = compare(model, "custom", layers="2", heal=heal(here), on_progress=tell, **how(here, tmp_path))
    without = compare(model, "custom", layers="2", heal=heal(here, unlabelled=()), **how(here, tmp_path))
    bounded = compare(model, "custom", layers="2", heal=heal(here, unlabelled_rows=20), **how(here, tmp_path))
    assert without.full.stored and without.full.digest == found.full.digest == bounded.full.digest
    assert len({each.pruned.digest for each in (found, without, bounded)}) == 3
    assert "unlabelled" not in json.dumps(found.full.outcome) and "rows" not in without.pruned.outcome["heal"]
    counts = found.pruned.outcome["heal"]["rows"]
    left_out = {"rows of the evaluation": 4, "rows of the training": 36, "repeated rows": 0}
    assert counts == {"labelled": 36, "unlabelled": 40, "left_out": left_out}
    assert found.pruned.outcome["heal"]["steps"] == 2 * 10 and without.pruned.outcome["heal"]["steps"] == 2 * 5
    assert bounded.pruned.outcome["heal"]["steps"] == 2 * 7
    note = next(note for note in found.pruned.outcome["notes"] if "without labels" in note)
    assert note.startswith("36 labelled rows, and 40 without labels from ") and f"pruned model: {note}" in said
    (content,) = found.pruned.record["spec"]["heal"]["unlabelled"]
    assert content.startswith("sha256:") and str(here) not in json.dumps(found.pruned.record["spec"])
    again = compare(model, "custom", layers="2", heal=heal(here), **how(here, tmp_path))
    assert again.pruned.stored and again.pruned.digest == found.pruned.digest


def test_rows_that_changed_are_another_run_and_their_order_of_sources_is_none(here, tmp_path):
    (tmp_path / "a.txt").write_text("ba be bi\nda de di\n")
    sources = [str(tmp_path / "a.txt"), str(here / "other.txt")]
    more = {"layers": "1,2", **how(here, tmp_path / "runs")}
    one, other = (
        compare(str(here / "model"), "custom", heal=heal(here, "hidden-kd", unlabelled=tuple(each)), **more)
        for each in (sources, sources[::-1])
    )
    assert other.pruned.stored and other.pruned.digest == one.pruned.digest
    (tmp_path / "a.txt").write_text("ba be bi\nda de do\n")
    changed = compare(str(here / "model"), "custom", heal=heal(here, "hidden-kd", unlabelled=tuple(sources)), **more)
    assert not changed.pruned.stored and changed.pruned.digest != one.pruned.digest and changed.full.stored


def test_a_regression_with_a_head_on_the_mean_and_an_epoch_that_is_chosen_learns_from_them(here, tmp_path):
    recipe = heal(
        here, "patient-kd+finetune(num_epochs=1)", head="mean", validation_fraction=0.25, similar_lengths=True
    )
    found = compare(str(here / "model"), "custom", layers="1", heal=recipe, **how(here, tmp_path, "amount"))
    distilled, finetuned = found.pruned.outcome["heal"]["trainings"]
    assert found.full.outcome["primary"] == "pearson"
    assert (distilled["steps"], finetuned["steps"]) == (2 * 9, 4), "27 and 40 rows, and 27"
    assert distilled["validation_score"] is not None and found.full.outcome["heal"]["steps"] == 2 * 4


def test_several_depths_from_one_training_share_it_with_those_without(here, tmp_path):
    recipe = heal(here, "layerdrop+distill")
    curve = train_once(str(here / "model"), "custom", "2", heal=recipe, **how(here, tmp_path))
    record = curve.runs[2].record
    assert record["outcome"]["heal"]["rows"]["unlabelled"] == 40
    (whole,) = [
        spec
        for file in tmp_path.glob("*/spec.json")
        if (spec := json.loads(file.read_text()))["heal"]["steps"] and not spec["drop"]["dropped"]
    ]
    assert whole["heal"]["unlabelled"] == [] and [step["method"] for step in whole["heal"]["steps"]] == ["layerdrop"]


def test_an_entry_of_a_sweep_holds_for_the_recipes_that_learn_from_a_teacher(here, tmp_path, monkeypatch):
    def one_by_one(do, items, resources):
        for item in items:
            yield Outcome(item, do(item))

    monkeypatch.setitem(executors._parts, "local", one_by_one)
    grid = {"models": str(here / "model"), "tasks": "custom", "dataset": str(here / "rows.csv"), "counts": 1, **QUICK,
            "text_columns": "text", "label_column": "label", "strategies": "top", "max_length": 16, "seeds": 1,
            "unlabelled": str(here / "more.txt"), "heal": [
                "finetune", {"name": "all", "steps": "logit-kd"},
                {"name": "few", "steps": "logit-kd", "unlabelled_rows": 8}]}  # fmt: skip
    done = sweep(grid, store=tmp_path, device="cpu", profile=False)
    assert not done.failed, done.failed
    rows = {row.recipe: done.records[row.digest] for row in done.rows if row.count}
    assert "rows" not in rows["finetune"]["outcome"]["heal"] and rows["finetune"]["spec"]["heal"]["unlabelled"] == []
    assert {name: rows[name]["outcome"]["heal"]["rows"]["unlabelled"] for name in ("all", "few")} == {
        "all": 40,
        "few": 8,
    }
    assert len({row.digest for row in done.rows if not row.count}) == 1
    data, recipe = with_unlabelled(load_task("custom", how(here, tmp_path)["options"]), heal(here))
    source, plan = locate(str(here / "model")), LayerPlan(3, (2,))
    spec = make_spec(source, data, plan, heal=recipe, max_length=16, seed=1)
    assert spec.to_dict() == rows["all"]["spec"], "the command names the same run"
    with pytest.raises(UserError, match="unlabelled rows are named, and no recipe learns from a teacher's answers"):
        sweep({**grid, "heal": ["finetune"]}, store=tmp_path)


def test_auto_gives_them_to_every_cut_and_not_to_the_full_model(here, tmp_path):
    more = how(here, Store(tmp_path)) | {"allow_pickle": False, "trust_remote_code": False, "on_progress": no_progress}
    del more["profile"]
    model = str(here / "model")
    found = plans_for(model, "custom", strategies=["top"], heal=heal(here, steps=()), teacher=None, **more)
    jobs = sorted(found.jobs.values(), key=lambda job: job.plan.count)
    assert [len(job.spec.heal.unlabelled) for job in jobs] == [0, 1, 1] and jobs[2].spec.heal.steps
    assert [job.unlabelled for job in jobs] == [(), *[(str(here / "more.txt"),)] * 2]


def test_healing_a_checkpoint_that_was_cut_says_that_it_takes_none(here, tmp_path):
    import depthprune

    with pytest.raises(UserError, match="unlabelled rows beside a task's own go with depthprune run"):
        depthprune.heal("cut", "full", tmp_path / "out", task="mrpc", recipe=heal(here))
