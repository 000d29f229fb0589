"""A method that needs a teacher gets the full model, fine-tuned once for all runs, or the one that is given."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from depthprune.errors import UserError
from depthprune.experiments.comparison import compare
from depthprune.experiments.run import run
from depthprune.experiments.specification import make_spec
from depthprune.experiments.store import Store
from depthprune.healing.base import Healed, healer, registry
from depthprune.healing.recipe import parse_recipe
from depthprune.plan import LayerPlan
from depthprune.sources import locate
from depthprune.specs import HealSpec
from depthprune.tasks import TaskOptions, load_task
from tiny_models import tiny_checkpoint, words

HEAD = "classifier.weight"


@pytest.fixture
def taking():
    """A method of another package: the student gets the teacher's head."""

    @healer("take-head", needs_teacher=True)
    def take_head(model, data, options, *, schedule, seed, cut, teacher, on_step):
        """Give the student the head of its teacher."""
        full = teacher.model()
        assert not full.training and not any(parameter.requires_grad for parameter in full.parameters())
        assert full.config.num_hidden_layers == cut.plan.depth > model.config.num_hidden_layers
        model.classifier.load_state_dict(full.classifier.state_dict())
        return Healed(model)

    yield HealSpec(num_epochs=1, batch_size=8, learning_rate=1e-3, precision="float32", steps=parse_recipe("take-head"))
    registry._parts.pop("take-head")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    tiny_checkpoint(folder / "model", "bert", "base", 3)
    lines = words(32 * 6, line=6).splitlines()[:32]
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{line},{i % 2}\n" for i, line in enumerate(lines)))
    return folder


def options_of(folder: Path) -> TaskOptions:
    return TaskOptions(str(folder / "rows.csv"), ("text",), "label")


def pruned(folder: Path, store: Path, heal: HealSpec, dropped: tuple[int, ...], **more):
    source, data, plan = locate(str(folder / "model")), load_task("custom", options_of(folder)), LayerPlan(3, dropped)
    spec = make_spec(source, data, plan, heal=heal, max_length=16, seed=1)
    return run(source, data, spec, plan, store=Store(store), save=True, profile=False, **more)


def head(model: Path) -> torch.Tensor:
    return load_file(model / "model.safetensors")[HEAD]


def test_the_full_model_is_fine_tuned_once_and_teaches_all_runs(here, tmp_path, taking):
    first = pruned(here, tmp_path, taking, (2,))
    (full,) = (p for p in tmp_path.glob("*/record.json") if not json.loads(p.read_text())["spec"]["drop"]["dropped"])
    written = full.stat().st_mtime_ns
    second = pruned(here, tmp_path, taking, (0, 1))
    assert len(list(tmp_path.glob("*/record.json"))) == 3 and full.stat().st_mtime_ns == written, "it was trained once"
    assert first.model and second.model
    assert torch.equal(head(first.model), head(full.parent / "model"))
    assert torch.equal(head(second.model), head(full.parent / "model"))
    record = json.loads(full.read_text())
    assert record["outcome"]["heal"]["steps"] > 0 and record["spec"]["heal"]["steps"] == []
    assert first.outcome["heal"]["steps"] == 0


def test_a_teacher_that_is_given_is_the_one_that_teaches(here, tmp_path, taking):
    given = tiny_checkpoint(tmp_path / "given", "bert", "classification", 3)
    more = {"options": options_of(here), "max_length": 16, "seed": 1, "store": tmp_path / "runs", "device": "cpu"}
    found = compare(str(here / "model"), "custom", layers="2", heal=taking, teacher=given, profile=False, **more)
    assert found.pruned.model is not None and torch.equal(head(found.pruned.model), head(given))
    assert found.pruned.record["spec"]["heal"]["teacher"] == locate(str(given)).identity
    assert found.full.model is None, "nobody needs its checkpoint"
    with pytest.raises(UserError, match="the recipe names the teacher 'sha256:0123…', and another one is given"):
        pruned(here, tmp_path / "runs", HealSpec(steps=taking.steps, teacher="sha256:0123"), (2,))
    with pytest.raises(UserError, match="none of its steps needs one"):
        compare(str(here / "model"), "custom", layers="2", heal=HealSpec(), teacher=given, **more)


def test_a_named_recipe_of_distillation_is_a_run_like_any_other(here, tmp_path):
    schedule = {"num_epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "precision": "float32"}
    seen = []
    heal = HealSpec(steps=parse_recipe("patient-kd"), **schedule)
    result = pruned(here, tmp_path, heal, (1,), on_progress=lambda stage, *_: seen.append(stage))
    assert result.outcome["heal"]["steps"] == 8 and result.outcome["heal"]["loss"] > 0
    (said,) = (stage for stage in dict.fromkeys(seen) if stage.startswith("the teacher's answers"))
    assert said == "the teacher's answers (computed once; its states take 0.0 MB on the disk)"
    assert any(note.startswith("the teacher's answers: computed once") for note in result.outcome["notes"])
