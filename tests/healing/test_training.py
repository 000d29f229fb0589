"""Fine-tuning learns, repeats itself with a seed, and its probe leaves no trace."""

import pytest
import torch

from depthprune.errors import UserError
from depthprune.healing.base import Schedule, TrainingData
from depthprune.healing.precision import faster, faster_precision, interleaved_minima
from depthprune.healing.training import train as train_model
from depthprune.tasks import Task, TaskData
from depthprune.tasks.data.encoding import encode
from tiny_models import ARCHITECTURES, build, tiny_model, tiny_tokenizer

TASK = Task("first-word", ("text",), "label", ("ba", "be"), ("accuracy",))


def encoded(count: int = 64):
    from datasets import Dataset

    # Every length comes with both labels: batches of similar length would else be batches of one label.
    texts = [("ba " if i % 2 else "be ") + " ".join(["da", "fu", "ki"][: i // 2 % 4]) for i in range(count)]
    rows = Dataset.from_dict({"text": texts, "label": [1 - i % 2 for i in range(count)]})
    return encode(TaskData(TASK, {"train": rows}), tiny_tokenizer(), 16)["train"]


def train(seed: int = 0, on_step=None, loss=None, rows=None, **options):
    model = tiny_model("bert", "classification", depth=2)
    schedule = Schedule(**{"num_epochs": 6, "batch_size": 8, "learning_rate": 5e-3, "precision": "float32", **options})
    data = TrainingData(rows or encoded(), tiny_tokenizer())
    report = train_model(model, data, schedule, loss=loss, seed=seed, on_step=on_step)
    return model, report


def test_it_learns_what_the_first_word_says():
    untrained = mean_loss(tiny_model("bert", "classification", depth=2))
    model, report = train(num_epochs=12)

    assert mean_loss(model) < 0.2 < untrained
    assert report.steps == 96 and report.precision == "float32"
    assert report.examples_per_second == pytest.approx(12 * 64 / report.seconds)


def test_its_steps_are_those_of_a_loop_written_by_hand():
    """Without dropout and with one batch a pass there is no randomness left, so the weights have to agree."""
    from transformers import get_linear_schedule_with_warmup

    def without_dropout():
        model = tiny_model("bert", "classification", depth=2)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return model

    rows, epochs, rate = encoded(16), 8, 5e-3
    ours, loop = without_dropout(), without_dropout().train()
    train_model(ours, TrainingData(rows, tiny_tokenizer()), Schedule(epochs, 16, rate, precision="float32"))

    batch = tiny_tokenizer().pad(rows.remove_columns("length").to_list(), return_tensors="pt")
    optimizer = torch.optim.AdamW(loop.parameters(), lr=rate, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, epochs)
    for _ in range(epochs):
        loop(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(loop.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    start = dict(without_dropout().named_parameters())
    for (name, mine), other in zip(ours.named_parameters(), loop.parameters(), strict=True):
        if name.endswith("key.bias"):  # softmax cancels it; Adam makes steps of the rounding of its gradient
            continue
        moved = (start[name] - other).abs().max().item()
        assert (mine - other).abs().max().item() <= max(0.02 * moved, 1e-5), name


def test_a_seed_repeats_a_run_and_another_seed_does_not():
    one, same, other = (train(seed, num_epochs=1)[0].classifier.weight for seed in (1, 1, 2))

    assert torch.equal(one, same) and not torch.equal(one, other)


def test_no_epochs_train_nothing_and_say_so():
    model, report = train(num_epochs=0)

    before = tiny_model("bert", "classification", depth=2).state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert (report.steps, report.seconds, report.loss) == (0, 0.0, None)


def test_progress_counts_every_step():
    seen = []

    train(num_epochs=1, on_step=lambda done, total: seen.append((done, total)))

    assert seen == [(i, 8) for i in range(1, 9)]


def test_bfloat16_trains_float32_weights():
    model, report = train(num_epochs=1, precision="bfloat16")

    assert report.precision == "bfloat16"
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_after_training_in_bfloat16_the_model_computes_in_float32_again():
    model, _ = train(num_epochs=1, precision="bfloat16")
    again = tiny_model("bert", "classification", depth=2)
    again.load_state_dict(model.state_dict())
    batch = tiny_tokenizer().pad(encoded().remove_columns(["length", "labels"])[:], return_tensors="pt")

    with torch.no_grad():
        assert torch.equal(model.eval()(**batch).logits, again.eval()(**batch).logits)


def test_the_probe_leaves_weights_gradients_and_random_numbers_as_they_were():
    model = tiny_model("bert", "classification", depth=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = encoded().remove_columns("length").select(range(4))
    batch = dict(tiny_tokenizer().pad(first[:], return_tensors="pt"))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)

    assert faster_precision(model, batch).precision in ("float32", "bfloat16")

    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not model.training


def test_a_machine_that_is_busy_for_a_while_does_not_decide_the_precision():
    now = 0.0

    def step(seconds: float):
        def act() -> None:
            nonlocal now
            now += seconds * (2 if now < 4.5 else 1)  # busy during the first two or three steps

        return act

    times = interleaved_minima([step(1.0), step(1.0)], clock=lambda: now)

    assert times == [1.0, 1.0]
    assert faster({"float32": times[0], "bfloat16": times[1]}).precision == "float32"
    assert faster({"float32": 1.5, "bfloat16": 1.0}).precision == "bfloat16"


def test_a_precision_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="auto, float32, bfloat16"):
        train(precision="int8")


def test_a_loss_of_ones_own_gets_the_model_and_all_columns_and_takes_the_same_steps():
    rows, seen = encoded(), []
    numbered = rows.add_column("row", list(range(len(rows)))).remove_columns("labels")
    labels = torch.tensor(rows["labels"][:])

    def loss(model, batch):
        assert model.training
        row = batch.pop("row")
        seen.extend(row.tolist())
        return model(**batch, labels=labels[row]).loss

    ours, report = train(1, loss=loss, rows=numbered, num_epochs=1)
    plain, expected = train(1, num_epochs=1)

    assert sorted(seen) == list(range(64)) != seen
    assert report.loss == expected.loss
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_a_loss_of_ones_own_is_what_the_probe_of_precisions_times():
    seen = []

    def loss(model, batch):
        seen.append(sorted(batch))
        return model(**{name: values for name, values in batch.items() if name != "row"}).logits.square().mean()

    rows = encoded().remove_columns("labels")
    train(loss=loss, rows=rows.add_column("row", list(range(len(rows)))), num_epochs=1, precision="auto")
    assert all("row" in names and "labels" not in names for names in seen) and len(seen) >= 8


def test_a_loss_that_is_not_finite_ends_the_training_and_the_step_is_named():
    steps = []

    def loss(model, batch):
        value = model(**batch).loss
        return value * float("nan") if len(steps) == 2 else value

    with pytest.raises(UserError, match="the loss is nan at step 3 of 8: the training diverged; lower --learning-rate"):
        train(loss=loss, on_step=lambda done, total: steps.append(done), num_epochs=1)


def test_the_learning_rate_rises_over_the_steps_of_the_warm_up():
    """One step from the start at a learning rate of zero leaves every weight as it was."""
    start = tiny_model("bert", "classification", depth=2).classifier.weight
    rows = encoded(8)
    with_it, without = (train(rows=rows, num_epochs=1, warmup=warmup)[0].classifier.weight for warmup in (0.5, 0.0))
    assert torch.equal(with_it, start) and not torch.equal(without, start)


def chosen(scores, loss=None, rows=None, **options):
    """Train with an epoch chosen by made-up scores; returns the model, the report and the weights after each look."""
    model, looks, seen = tiny_model("bert", "classification", depth=2), iter(scores), []

    def measure(trained, held_out):
        seen.append({"rows": held_out["row"][:], "weight": trained.classifier.weight.detach().clone()})
        return next(looks)

    rows = rows or encoded().add_column("row", list(range(64)))
    schedule = Schedule(**{"num_epochs": 4, "batch_size": 8, "learning_rate": 5e-3, "precision": "float32",
                           "validation_fraction": 0.25, **options})  # fmt: skip
    data = TrainingData(rows, tiny_tokenizer(), measure=measure)
    return model, train_model(model, data, schedule, loss=loss, seed=3), seen


def test_the_weights_of_the_best_epoch_on_rows_that_are_held_out_are_kept():
    trained_on = []

    def loss(model, batch):
        trained_on.extend(batch.pop("row").tolist())
        return model(**batch).loss

    model, report, seen = chosen((0.3, 0.6, 0.5, 0.6), loss)
    assert (report.best_step, report.validation_score, report.steps) == (12, 0.6, 24) and len(seen) == 4
    assert torch.equal(model.classifier.weight, seen[1]["weight"]) and not torch.equal(
        seen[3]["weight"], seen[1]["weight"])  # fmt: skip
    held_out = seen[0]["rows"]
    assert len(held_out) == 16 and not set(held_out) & set(trained_on) and len(set(trained_on)) == 48
    assert all(look["rows"] == held_out for look in seen)


def test_a_training_ends_after_so_many_epochs_without_a_better_one():
    model, report, seen = chosen((0.3, 0.6, 0.5, 0.4), patience=1)
    assert (report.steps, report.best_step, len(seen)) == (18, 12, 3)
    assert report.examples_per_second == pytest.approx(3 * 48 / report.seconds)
    assert torch.equal(model.classifier.weight, seen[1]["weight"])


def test_where_a_training_diverges_the_best_epoch_so_far_is_kept():
    steps = []

    def loss(model, batch):
        steps.append(batch.pop("row"))
        value = model(**batch).loss
        return value / 0.0 if len(steps) == 14 else value

    model, report, seen = chosen((0.3, 0.6), loss)
    assert (report.diverged_step, report.best_step) == (14, 12) and 0 < report.loss < 5
    assert torch.equal(model.classifier.weight, seen[1]["weight"])


def test_an_epoch_is_chosen_only_where_there_are_rows_and_a_metric():
    with pytest.raises(UserError, match=r"a validation_fraction of 0.01 of 32 training rows holds out 0"):
        chosen((), rows=encoded(32), validation_fraction=0.01)
    with pytest.raises(UserError, match="no metric to choose an epoch by"):
        train(num_epochs=1, validation_fraction=0.5)


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_batch_in_parts_makes_the_steps_of_the_whole(outputs):
    """Without dropout the gradients differ by their rounding alone; a step of AdamW is 1e-3 here."""

    def after(**options):
        row = ARCHITECTURES["bert"]
        known = {"num_labels": outputs, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        model = build(row.classes["classification"], row.make_config(2, **known))
        model.config.problem_type = "regression" if outputs == 1 else "single_label_classification"
        rows = encoded(24)
        rows = rows if outputs > 1 else rows.map(lambda row: {"labels": float(row["labels"])}, new_fingerprint="floats")
        schedule = Schedule(num_epochs=2, batch_size=8, learning_rate=1e-3, precision="float32", **options)
        report = train_model(model, TrainingData(rows, tiny_tokenizer()), schedule, seed=0)
        return model, report

    (whole, one), (parts, other) = after(), after(accumulation=4)
    assert other.steps == one.steps == 6 and other.loss == pytest.approx(one.loss, rel=1e-4)
    for (name, mine), theirs in zip(whole.named_parameters(), parts.parameters(), strict=True):
        if not name.endswith("key.bias"):  # softmax cancels it; Adam makes steps of the rounding of its gradient
            assert (mine - theirs).abs().max() < 2e-4, name


def mean_loss(model) -> float:
    batch = tiny_tokenizer().pad(encoded().remove_columns("length")[:], return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch).loss.item()
