"""A method that needs a teacher gets the full model, fine-tuned once for all runs, or the one that is given."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from depthprune.errors import UserError
from depthprune.experiments.comparison import compare
from depthprune.experiments.run import run
from depthprune.experiments.specification import make_spec
from depthprune.experiments.store.store import Store
from depthprune.healing.base import Healed, healer, registry
from depthprune.healing.recipe import parse_recipe
from depthprune.plan import LayerPlan
from depthprune.sources import locate
from depthprune.specs import HealSpec
from depthprune.tasks import TaskOptions, load_task
from tiny_models import tiny_checkpoint, tiny_tokenizer, words

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
    return run(source, data, spec, store=Store(store), save=True, profile=False, **more)


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


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A model that gives every row of its data the right label, and the data."""
    folder = tmp_path_factory.mktemp("fine-tuned")
    tiny_checkpoint(folder / "model", "bert", "classification", 3)
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    lines = words(64 * 6, line=6).splitlines()[:64]
    batch = tiny_tokenizer()(lines, return_tensors="pt", padding=True)
    with torch.no_grad():
        lead = model(**batch).logits[:, 1] - model(**batch).logits[:, 0]
        model.classifier.bias[1] -= lead.median() + 1e-4
    model.save_pretrained(folder / "model")
    labels = (lead > lead.median() + 1e-4).int().tolist()
    rows = [f"{line},{label}" for line, label in zip(lines, labels, strict=True)]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    flipped = [f"{line},{1 - label}" for line, label in zip(lines, labels, strict=True)]
    (folder / "flipped.csv").write_text("text,label\n" + "\n".join(flipped) + "\n")
    return folder


def test_a_model_that_is_fine_tuned_already_is_scored_as_it_is_and_teaches(classifier, tmp_path):
    heal = HealSpec(num_epochs=2, batch_size=16, learning_rate=1e-3, precision="float32", steps=parse_recipe("distill"))
    more = {"options": options_of(classifier), "max_length": 16, "store": tmp_path / "runs", "device": "cpu"}
    found = compare(str(classifier / "model"), "custom", layers="1", heal=heal, profile=False, **more)
    assert found.full.score == 1 and found.full.outcome["heal"]["steps"] == 0 and found.full.model is None
    lists = {"steps": [], "freeze_layers": [], "unlabelled": []}
    assert found.full.record["spec"]["heal"] == {**HealSpec(num_epochs=0).__dict__, **lists}
    assert found.pruned.record["spec"]["heal"]["fine_tuned"] and found.pruned.outcome["heal"]["steps"] == 8
    assert any("as it was given" in note for note in found.pruned.outcome["notes"])
    assert len(list((tmp_path / "runs").glob("*/record.json"))) == 2
    plain = HealSpec(num_epochs=0, fine_tuned=True)
    again = compare(str(classifier / "model"), "custom", layers="1", heal=plain, profile=False, **more)
    assert again.full.stored and again.full.digest == found.full.digest


def test_a_model_that_has_a_head_and_has_not_learned_the_task_teaches_nothing(classifier, here, tmp_path):
    more = {"max_length": 16, "store": tmp_path / "runs", "device": "cpu", "profile": False, "layers": "1"}
    taught = HealSpec(steps=parse_recipe("distill"))
    options = TaskOptions(str(classifier / "flipped.csv"), ("text",), "label")
    with pytest.raises(
        UserError, match=r"has a head for 'custom', but as it is scores accuracy 0.00, and knowing nothing"
    ):
        compare(str(classifier / "model"), "custom", heal=taught, options=options, **more)
    with pytest.raises(UserError, match="has no trained head for 'custom', so it is not fine-tuned on it"):
        compare(str(here / "model"), "custom", heal=HealSpec(fine_tuned=True), options=options_of(here), **more)
    with pytest.raises(UserError, match=r"has no trained 'classifier.bias' for 2 outputs; give one that is fine-tuned"):
        compare(str(here / "model"), "custom", heal=taught, teacher=here / "model", options=options_of(here), **more)
    other = tiny_tokenizer()
    other.add_tokens(["zzz"])
    shutil.copytree(classifier / "model", tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"the teacher '.*other' has another vocabulary than '.*model'"):
        compare(
            str(here / "model"), "custom", heal=taught, teacher=tmp_path / "other", options=options_of(here), **more
        )
