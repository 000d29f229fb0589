"""A training that was interrupted is resumed: on a CPU every tensor, loss and score is that of one that was not."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Healed, TrainingData
from depthprune.healing.execution import resuming
from depthprune.healing.execution.place import Place
from depthprune.healing.recipe import heal, parse_recipe, resolve
from depthprune.plan import LayerPlan
from depthprune.specs import Execution, HealSpec
from tiny_healing import Full, data
from tiny_models import tiny_model

BASE = HealSpec(num_epochs=3, batch_size=8, learning_rate=1e-3, precision="float32")  # 4 steps an epoch


@pytest.fixture(autouse=True)
def every_step(monkeypatch):
    """Save a state after every step."""
    monkeypatch.setattr(resuming, "EVERY", 0.0)
    monkeypatch.setattr(resuming, "WORTH", 0)


def healed(
    recipe: str,
    states: Path | None = None,
    *,
    stop_at: int | None = None,
    said: list[str] | None = None,
    about=None,
    resume: bool = True,
    unlabelled: int = 0,
    **options,
) -> tuple[Healed, list[int]]:
    """Heal a tiny model; returns what came of it, and the steps that were made.

    Args:
        stop_at: raise an interrupt after so many steps of all trainings, before their state is saved.
    """
    steps: list[int] = []

    def on_step(done: int, total: int) -> None:
        steps.append(done)
        if len(steps) == stop_at:
            raise KeyboardInterrupt

    rows = data(unlabelled=unlabelled)
    looks = [0.2, 0.5, 0.3, 0.1]

    def measure(model, held_out):  # the same at each look, after a resume too
        return looks[min(3, (steps[-1] - 1) // 3)]

    place = None if states is None else Place("a", states.with_name("logs"), states, about)
    rows = TrainingData(
        *(rows.rows, rows.tokenizer),
        measure=measure,
        execution=Execution(resume=resume),
        place=place,
        on_progress=lambda stage, done, total: said.append(stage) if said is not None else None,
        num_unlabelled=rows.num_unlabelled,
    )
    planned = resolve(dataclasses.replace(BASE, steps=parse_recipe(recipe), **options))
    cut = Cut(LayerPlan(3, (0, 2)))
    return heal(tiny_model("bert", "classification", depth=3), rows, planned, cut=cut, seed=1, teacher=Full(),
                on_step=on_step), steps  # fmt: skip


def same(one: Healed, other: Healed) -> None:
    """Compare weights, and all that the reports say but for times."""
    tensors, others = one.model.state_dict(), other.model.state_dict()
    assert tensors.keys() == others.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []
    timeless = {"seconds": 0, "examples_per_second": 0, "resumed_steps": ()}
    assert [dataclasses.replace(each, **timeless) for each in one.trainings] == [
        dataclasses.replace(each, **timeless) for each in other.trainings
    ]


# (recipe, options, after how many steps it is interrupted: within an epoch, and after the first of one)
@pytest.mark.parametrize(
    "recipe, options, stops",
    [
        ("freeze(embeddings=true)+finetune", {"warmup": 0.3}, (3, 5)),
        ("finetune", {"num_epochs": 2.5, "accumulation": 2, "similar_lengths": True}, (6,)),
        ("finetune", {"validation_fraction": 0.25, "num_epochs": 4.0, "patience": 2}, (8,)),
        ("drop+freeze(layers=1, embeddings=true, dropout=false)+finetune", {}, (6,)),
        ("distill(beta=1, tokens=all)", {"precision": "bfloat16"}, (7,)),
        ("distill(gamma=1, lora_rank=2)", {}, (6,)),
        ("lora", {}, (5,)),
        ("gradual", {"num_epochs": 1.0}, (6, 10)),
        ("theseus", {"num_epochs": 2.0}, (6, 13)),
        (
            "distill(beta=1)+finetune",
            {"unlabelled": 16, "validation_fraction": 0.25, "accumulation": 2, "similar_lengths": True},
            (7, 19),
        ),
        ("embedding", {}, (7,)),
        ("adaptive-layers(depths=1-2, alpha=0.5)", {"accumulation": 2}, (6,)),
        ("layerdrop(rate=0.4)", {"accumulation": 2}, (6,)),
        ("finetune+drop+freeze(layers=1)+finetune", {"num_epochs": 2.0}, (3, 14)),
    ],
)
def test_an_interrupted_training_comes_to_what_one_that_was_not_does(recipe, options, stops, tmp_path):
    whole, steps = healed(recipe, **options)
    for stop in stops:
        states, said = tmp_path / str(stop), list[str]()
        with pytest.raises(KeyboardInterrupt):
            healed(recipe, states, stop_at=stop, **options)
        resumed, rest = healed(recipe, states, said=said, **options)
        assert rest == steps[stop - 1 :], "from the last state that was saved"
        same(resumed, whole)
        assert f"resuming the training at step {rest[0] - 1}" in said
        (where,) = {report.resumed_steps for report in resumed.trainings} - {()}
        assert where == (rest[0] - 1,)


def test_a_training_that_is_interrupted_again_and_again_counts_all_its_time(tmp_path):
    whole, _ = healed("finetune")
    for stop in (3, 4, 2):
        with pytest.raises(KeyboardInterrupt):
            healed("finetune", tmp_path, stop_at=stop)
    resumed, rest = healed("finetune", tmp_path)
    same(resumed, whole)
    (report,) = resumed.trainings
    assert report.resumed_steps == (2, 5, 6) and rest[0] == 7
    assert report.examples_per_second == pytest.approx(96 / report.seconds)


def test_a_state_that_was_being_written_does_not_count(tmp_path):
    whole, _ = healed("finetune")
    with pytest.raises(KeyboardInterrupt):
        healed("finetune", tmp_path, stop_at=6)
    (state,) = (tmp_path / "1").iterdir()
    assert state.name == "checkpoint-5", "one is kept"
    half = tmp_path / "1" / "checkpoint-6"
    half.mkdir()
    (half / "weights.pt").write_bytes(b"half")
    resumed, rest = healed("finetune", tmp_path)
    same(resumed, whole)
    assert rest[0] == 6


@pytest.mark.parametrize(
    "other, differs",
    [
        ({"learning_rate": 2e-3}, "learning_rate"),
        ({"about": {"run": "b"}}, "run"),
        ({"num_epochs": 4.0}, "num_epochs"),
    ],
)
def test_the_state_of_another_training_is_removed_and_that_is_said(other, differs, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        healed("finetune", tmp_path, stop_at=6, about={"run": "a"})
    said = []
    begun, steps = healed("finetune", tmp_path, said=said, **{"about": {"run": "a"}, **other})
    assert f"the training begins anew, since its saved state is of another {differs}" in said
    assert steps[0] == 1 and begun.trainings[0].resumed_steps == ()


def test_the_state_of_another_version_is_not_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        healed("finetune", tmp_path, stop_at=3)
    (file,) = tmp_path.glob("1/checkpoint-2/about.json")
    about = json.loads(file.read_text())
    about["training"]["version of torch"] = "1.0"
    file.write_text(json.dumps(about))
    said = []
    assert healed("finetune", tmp_path, said=said)[1][0] == 1
    assert "the training begins anew, since its saved state is of another version of torch" in said


def test_what_a_probe_decided_before_the_interruption_holds_after_it(tmp_path, monkeypatch):
    """Of the training before, too, which is done again if it has saved nothing."""
    from depthprune.healing import training
    from depthprune.healing.precision import Probe

    found = iter(("bfloat16", "float32"))
    monkeypatch.setattr(training, "faster_precision", lambda *_: Probe(next(found), {}))
    with pytest.raises(KeyboardInterrupt):
        healed("finetune+drop+finetune", tmp_path, stop_at=15, precision="auto")
    resuming.shutil.rmtree(tmp_path / "1")
    resumed, _ = healed("finetune+drop+finetune", tmp_path, precision="auto")
    assert [report.precision for report in resumed.trainings] == ["bfloat16", "float32"]
    assert resumed.trainings[1].resumed_steps == (2,) and next(found, None) is None


def test_nothing_is_saved_of_a_short_training_nor_where_that_is_not_wanted(tmp_path, monkeypatch):
    healed("finetune", tmp_path / "not wanted", resume=False)
    monkeypatch.setattr(resuming, "EVERY", 300.0)
    healed("finetune", tmp_path / "short")
    assert list(tmp_path.iterdir()) == []


def test_without_room_on_the_disk_nothing_is_saved_and_that_is_said_once(tmp_path, monkeypatch):
    whole, _ = healed("finetune")
    monkeypatch.setattr(resuming, "SPARE", 1 << 62)
    said = []
    done, _ = healed("finetune", tmp_path / "states", said=said)
    same(done, whole)
    assert not (tmp_path / "states").exists()
    (line,) = [each for each in said if "no state is saved" in each]
    assert f"bytes, and the disk of '{tmp_path}' has 0 to spare" in line


def test_a_training_that_diverged_after_a_resume_keeps_the_best_epoch_of_before(tmp_path):
    options = {"validation_fraction": 0.25, "num_epochs": 4.0, "learning_rate": 1e-3}
    with pytest.raises(KeyboardInterrupt):
        healed("finetune", tmp_path, stop_at=8, **options)
    (file,) = tmp_path.glob("1/checkpoint-*/weights.pt")
    weights = torch.load(file)
    weights["classifier.weight"].fill_(float("nan"))  # the next loss is not finite
    torch.save(weights, file)
    done, _ = healed("finetune", tmp_path, **options)
    (report,) = done.trainings
    assert (report.best_step, report.validation_score, report.diverged_step) == (6, 0.5, 8)
    assert torch.isfinite(done.model.classifier.weight).all()


def test_a_training_that_diverges_without_a_better_epoch_says_so_after_a_resume_too(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        healed("finetune", tmp_path, stop_at=3)
    (file,) = tmp_path.glob("1/checkpoint-*/weights.pt")
    weights = torch.load(file)
    weights["classifier.weight"].fill_(float("inf"))
    torch.save(weights, file)
    with pytest.raises(UserError, match="at step 3 of 12: the training diverged"):
        healed("finetune", tmp_path)
