"""How a training is carried out, which changes nothing of what it comes to, and what is said of it while it lasts."""

import dataclasses
from importlib.util import find_spec
from typing import ClassVar

import pytest
import torch
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from depthprune.errors import UserError
from depthprune.healing.base import Cut, TrainingData
from depthprune.healing.execution.history import MOST_LOSSES
from depthprune.healing.execution.place import Place
from depthprune.healing.execution.progress import TrainingProgress
from depthprune.healing.execution.reporting import PACKAGES, check_reporters
from depthprune.healing.recipe import heal, parse_recipe, resolve, together
from depthprune.plan import LayerPlan
from depthprune.specs import Execution, HealSpec
from tiny_healing import Full, data
from tiny_models import tiny_model

QUICK = HealSpec(num_epochs=2, batch_size=8, learning_rate=1e-3, precision="float32")


def healed(recipe: str, *, rows: TrainingData | None = None, depth: int = 3, on_step=None, **options):
    """Heal a tiny model without its first and last layer; returns what the method returns."""
    planned = resolve(dataclasses.replace(QUICK, steps=parse_recipe(recipe), **options))
    model = tiny_model("bert", "classification", depth=depth)
    cut = Cut(LayerPlan(depth, (0, depth - 1)))
    return heal(model, rows or data(), planned, cut=cut, seed=1, teacher=Full(), on_step=on_step)


def carried_out(execution: Execution, **more) -> TrainingData:
    return dataclasses.replace(data(), execution=execution, **more)


@pytest.mark.parametrize(
    "recipe, options",
    [
        ("freeze(embeddings=true)+finetune", {}),
        ("distill(beta=1, tokens=all, gamma=1)", {"precision": "bfloat16"}),
        ("distill(beta=1, tokens=all)", {"precision": "bfloat16"}),  # its kept states are float16
        ("replace", {}),
        ("lora", {}),
        ("gradual", {"accumulation": 2}),
        ("embedding(dropout=true)", {}),
    ],
)
def test_activations_that_are_computed_again_change_no_weight(recipe, options, monkeypatch):
    again = []
    plain = healed(recipe, **options)
    real = torch.utils.checkpoint.checkpoint

    def counted(*args, **kwargs):
        again.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr("transformers.modeling_utils.checkpoint", counted)
    frugal = healed(recipe, rows=carried_out(Execution(gradient_checkpointing=True)), **options)
    assert again, "else nothing was computed again"
    assert frugal.trainings[0].loss == plain.trainings[0].loss
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, frugal.model.state_dict()[name]), name
    again.clear()
    frugal.model.train()(input_ids=torch.tensor([[5, 6]])).logits.sum().backward()
    assert not again, "the model is as it was"


def test_a_model_that_cannot_compute_its_activations_again_is_refused(monkeypatch):
    monkeypatch.setattr("transformers.BertPreTrainedModel.supports_gradient_checkpointing", False)
    with pytest.raises(UserError, match=r"a BertFor.* keeps the activations .*; leave --gradient-checkpointing out"):
        healed("finetune", rows=carried_out(Execution(gradient_checkpointing=True)))


def test_a_method_whose_student_does_not_train_in_training_mode_says_that_it_saves_no_memory():
    with pytest.raises(UserError, match=r"without dropout the student of 'embedding' .* leave --gradient"):
        healed("embedding", rows=carried_out(Execution(gradient_checkpointing=True)))


def test_the_history_has_the_losses_and_the_learning_rates_and_what_each_epoch_scored():
    said = []
    found = healed("finetune", rows=carried_out(Execution(), on_log=said.append), validation_fraction=0.25)
    (report,) = found.trainings
    losses = [point for point in report.history if "loss" in point]
    assert [point["step"] for point in losses] == list(range(1, 7)) and report.steps == 6
    assert sum(point["loss"] for point in losses) / 6 == pytest.approx(report.loss, rel=1e-5)
    assert [point["learning_rate"] for point in losses] == pytest.approx(
        [1e-3 * i / 6 for i in range(6, 0, -1)], rel=1e-5
    )
    scores = [(point["step"], point["validation_score"]) for point in report.history if "validation_score" in point]
    assert scores == [(3, 0.2), (6, 0.1)]
    assert list(report.history) == said


def test_the_history_of_a_long_training_has_about_a_hundred_losses_each_the_mean_of_its_interval():
    one, many = (healed("finetune", num_epochs=epochs).trainings[0] for epochs in (25.0, 26.0))
    assert (one.steps, len(one.history)) == (MOST_LOSSES, MOST_LOSSES)
    assert (many.steps, len(many.history)) == (104, 52) and many.history[-1]["step"] == 104
    assert sum(point["loss"] for point in many.history) / 52 == pytest.approx(many.loss, rel=1e-5)


def test_trainings_of_one_recipe_keep_a_history_each():
    both = healed("two-step", num_epochs=1).trainings
    assert [len(report.history) for report in both] == [4, 4] and together(both).history == ()
    assert together(both[:1]).history == both[0].history


def test_the_last_loss_and_score_are_said_beside_the_steps():
    seen = []
    told = TrainingProgress(lambda *said: seen.append(said), "training")
    rows = carried_out(Execution(), on_log=told.log)
    healed("finetune", rows=rows, on_step=told.step, validation_fraction=0.25)
    assert [(done, total) for _, done, total in seen] == [(i, 6) for i in range(1, 7)]
    loss = seen[0][0].removeprefix("training · loss ")
    assert 0.3 < float(loss) < 2 and ", held out 0.2" in seen[3][0] and "held out" not in seen[2][0]


class Notebook(TrainerCallback):
    """Where a training is reported to."""

    seen: ClassVar[list[dict]] = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.seen.append({"run": args.run_name})

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append(dict(logs or {}))


def test_losses_and_scores_are_reported_to_the_integration_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "notebook", Notebook)
    Notebook.seen = []
    plain = healed("two-step", validation_fraction=0.25)
    rows = carried_out(Execution(report_to=("notebook",)), place=Place("a1b2", tmp_path / "logs"))
    found = healed("two-step", rows=rows, validation_fraction=0.25)
    assert [entry["run"] for entry in Notebook.seen if "run" in entry] == ["a1b2", "a1b2-2"]
    losses = [entry["loss"] for entry in Notebook.seen if "loss" in entry]
    points = [point for report in found.trainings for point in report.history]
    assert losses == pytest.approx([point["loss"] for point in points if "loss" in point], rel=1e-5) and losses
    assert [entry["eval_score"] for entry in Notebook.seen if "eval_score" in entry] == [0.2, 0.1, 0.3, 0.0]
    assert all(torch.equal(t, found.model.state_dict()[name]) for name, t in plain.model.state_dict().items())


def test_tensorboard_writes_into_a_folder_of_the_run(monkeypatch, tmp_path):
    class Writer:
        made: ClassVar[list[str]] = []

        def __init__(self, log_dir):
            self.made.append(log_dir)

        def add_text(self, *args): ...
        def add_scalar(self, *args): ...
        def flush(self): ...
        def close(self): ...

    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", type("M", (), {"SummaryWriter": Writer}))
    healed("two-step", rows=carried_out(Execution(report_to=("tensorboard",)), place=Place("a", tmp_path / "logs")))
    assert Writer.made == [str(tmp_path / "logs"), str(tmp_path / "logs-2")]


def test_an_integration_that_does_not_exist_or_is_not_installed_is_named():
    with pytest.raises(UserError, match="to report to is named 'tensorbord'; did you mean 'tensorboard'"):
        check_reporters(["tensorbord"])
    missing = next(name for name in ("swanlab", "dvclive", "comet_ml") if find_spec(name) is None)
    with pytest.raises(UserError, match=f"reporting to '{missing}' needs its package: pip install {PACKAGES[missing]}"):
        healed("finetune", rows=carried_out(Execution(report_to=(missing,))))
    assert set(PACKAGES) >= set(integration_utils.INTEGRATION_TO_CALLBACK)
