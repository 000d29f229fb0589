"""The functions of the package called as a script calls them, one after the other on one store and one tiny model."""

import pytest

import depthprune
from depthprune import HealSpec, TaskOptions, UserError
from tiny_models import tiny_checkpoint

UNTRAINED = HealSpec(num_epochs=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "bert", num_layers=2))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "rows.csv"
    file.write_text("text,label\n" + "ba be,odd\nbi bo,even\n" * 20)
    return TaskOptions(str(file), ("text",), "label")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store") / "runs"


@pytest.fixture(scope="module")
def swept(model, rows, store):
    """What a sweep over the full model and one cut came to, and what it said of their ends."""
    spec = {
        "models": model, "tasks": "custom", "strategies": ["top", "symmetric"], "counts": [1], "max_length": 8,
        "dataset": rows.dataset, "text_columns": ["text"], "label_column": "label", "heal": {"num_epochs": 0},
    }  # fmt: skip
    ends = []
    found = depthprune.sweep(spec, store=store, workers=1, on_end=lambda *end: ends.append(end))
    return spec, found, ends


def test_inspect_returns_stacks_and_what_strategies_would_drop(model):
    found = depthprune.inspect(model)

    assert [(stack.name, stack.depth) for stack in found.stacks] == [("layers", 2)]
    assert found.stacks[0].choices(1)["top"].dropped == (1,)
    assert found.parameters > sum(found.stacks[0].parameters) > 0


def test_sweep_returns_a_record_for_every_run_and_the_reason_for_every_gap(swept):
    _, found, ends = swept

    assert [(row.strategy, row.count) for row in found.rows] == [("full", 0), ("top", 1)]
    assert sorted(found.records) == sorted(digest for digest, _, _ in ends) == sorted({r.digest for r in found.rows})
    assert not found.failed and {state for _, state, _ in ends} == {"done"}
    assert [note for note in found.skipped if note.startswith("symmetric, count 1")] == list(found.skipped) != []


def test_sweep_runs_nothing_again(swept, store):
    spec, found, _ = swept
    times = {file: file.stat().st_mtime_ns for file in store.glob("*/record.json")}

    assert depthprune.sweep(spec, store=str(store), workers=1).records == found.records
    assert times == {file: file.stat().st_mtime_ns for file in store.glob("*/record.json")}


def test_report_is_written_from_the_store(swept, store, tmp_path):
    depthprune.report(store, tmp_path / "report.html")
    depthprune.report(str(store), str(tmp_path / "report.csv"))

    assert "<svg" in (tmp_path / "report.html").read_text()
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 3  # a heading and two runs


def test_auto_answers_from_the_runs_of_a_sweep_and_keeps_the_best_checkpoint(swept, model, rows, store):
    from transformers import AutoModelForSequenceClassification

    answer = depthprune.auto(
        model, "custom", max_loss="100%", strategies=["top"], options=rows, heal=UNTRAINED, max_length=8, store=store,
        workers=1, profile=False,
    )  # fmt: skip

    assert answer.dropped == (1,) and answer.complete and set(answer.tried) == set(swept[1].records)
    assert answer.score is not None and answer.score == pytest.approx(answer.full.value, abs=1)
    assert answer.checkpoint is not None
    assert AutoModelForSequenceClassification.from_pretrained(answer.checkpoint).config.num_hidden_layers == 1


def test_auto_without_latencies_refuses_a_bound_on_them(model, rows, store):
    with pytest.raises(UserError, match="--speedup needs latencies, which --no-profile does not measure"):
        depthprune.auto(model, "custom", speedup=1.5, options=rows, store=store, profile=False)


def test_finetune_puts_the_checkpoint_where_it_is_told_and_evaluate_scores_it_alike(model, rows, store, tmp_path):
    tuned = depthprune.finetune(
        model, "custom", options=rows, heal=UNTRAINED, max_length=8, store=store, output=str(tmp_path / "tuned")
    )

    assert (
        tuned.model is not None and tuned.model == tmp_path / "tuned" and not (store / tuned.digest / "model").exists()
    )
    scored = depthprune.evaluate(tuned.model, "custom", options=rows, max_length=8)
    assert scored.primary == "accuracy" and scored.metrics["accuracy"].examples == 40
    assert 0 <= scored.score <= 1 and 0 <= tuned.score <= 1


def test_finetune_refuses_an_output_that_is_taken_before_it_trains(model, rows, store, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(UserError, match="taken' exists and is not an empty folder"):
        depthprune.finetune(model, "no such task", options=rows, store=store, output=tmp_path / "taken")
