"""`--heal` of `depthprune run`: a recipe step by step."""

import json
import re

import pytest

from tiny_models import tiny_checkpoint

DATA = ("--task", "custom", "--text-columns", "text", "--label-column", "kind")


def test_a_recipe_of_steps_is_carried_out_and_recorded(command, rows_csv, tmp_path):
    source = tiny_checkpoint(tmp_path / "model", num_layers=3)
    more = ("--dataset", rows_csv, "--layers", "2", "--epochs", 1, "--no-profile")

    answer = command("run", source, *DATA, *more, "--heal", "freeze(layers=0)+two-step", "--output", "out")

    assert answer.status == 0, answer
    records = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/record.json")]
    full, pruned = sorted(records, key=lambda record: len(record["spec"]["drop"]["dropped"]))
    assert [step["method"] for step in pruned["spec"]["heal"]["steps"]] == ["freeze", "finetune", "drop", "finetune"]
    assert full["spec"]["heal"]["steps"] == [] and len(pruned["outcome"]["heal"]["trainings"]) == 2
    assert pruned["outcome"]["heal"]["steps"] == 2 * full["outcome"]["heal"]["steps"] > 0
    assert (
        "the recipe freeze(layers=0)+finetune+drop+finetune on custom" in (tmp_path / "out" / "README.md").read_text()
    )


def test_a_loss_is_said_beside_the_steps_and_recorded_and_how_it_was_trained_is_no_part_of_the_spec(
    command, rows_csv, tmp_path
):
    source = tiny_checkpoint(tmp_path / "model", num_layers=3)
    more = ("--dataset", rows_csv, "--layers", "2", "--epochs", 1, "--no-profile", "--batch-size", 8)
    answer = command("run", source, *DATA, *more, "--gradient-checkpointing", "--validation-fraction", 0.2)
    assert answer.status == 0, answer
    assert re.search(r"\nfull model: training 1/8, loss 0\.\d+\n", answer.err)
    records = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/record.json")]
    for record in records:
        history = record["outcome"]["heal"]["history"]
        assert [point["step"] for point in history] == [*range(1, 9), 8]
        assert history[-1]["validation_score"] == record["outcome"]["heal"]["validation_score"]
    again = command("run", source, *DATA, *more, "--validation-fraction", 0.2)
    assert again.out.count("stored before") == 2 == len(records)


@pytest.mark.parametrize(
    "more, message",
    [
        (("--report-to", "tensorbord"), "is named 'tensorbord'; did you mean 'tensorboard'?"),
        (("--head", "meen"), "there is no head 'meen'; did you mean 'mean'? It is one of architecture, mean, cls"),
        (("--heal", "twostep"), "no healing method or recipe is named 'twostep'; did you mean 'two-step'?"),
        (("--heal", "finetune", "--epochs-before", 1), "epochs_before and steps exclude each other"),
        (("--heal", "merge+compensate", "--epochs", 0), "leaves none for 'compensate'; give one of the two"),
        (("--teacher", "model"), "none of its steps needs one; leave the teacher out"),
        (
            ("--unlabelled", "stsb"),
            "none of its steps learns from a teacher's answers to them; leave them out, or give",
        ),
        (("--heal", "theseus", "--unlabelled", "stsb"), "none of its steps learns from a teacher's answers"),
        (("--heal", "logit-kd", "--unlabelled-rows", 5), "bounds the rows of unlabelled, and there are none; give"),
        (
            ("--heal", "logit-kd", "--unlabelled", "stbs"),
            "GLUE task is named 'stbs'; did you mean 'stsb'? (known: cola",
        ),
        (("--heal", "logit-kd", "--unlabelled", "no/rows.csv"), "no file, folder or GLUE task is named 'no/rows.csv'"),
        (
            ("--heal", "logit-kd", "--unlabelled", "pairs.tsv"),
            "'pairs.tsv' has the text columns 'one' and 'two', and a row of 'custom' is one text, the text column",
        ),
        (
            ("--heal", "logit-kd", "--unlabelled", "same.txt"),
            "no unlabelled row is left of 'same.txt' (rows of the training: 1); give texts that are not the rows of",
        ),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line_and_nothing_is_left_behind(more, message, command, rows_csv, tmp_path):
    tiny_checkpoint(tmp_path / "model", num_layers=3)
    (tmp_path / "pairs.tsv").write_text("one\ttwo\nba\tbe\n")
    (tmp_path / "same.txt").write_text(f"{rows_csv.read_text().splitlines()[1].partition(',')[0].upper()}\n\n")
    answer = command("run", "model", *DATA, "--dataset", rows_csv, "--layers", "2", *more)
    assert answer.status == 2 and message in " ".join(answer.err.split()), answer
    assert not list(tmp_path.glob("runs/*"))


def test_a_regression_on_the_mean_of_the_tokens_is_scored_cut_and_inspected(command, rows_csv, tmp_path):
    source = tiny_checkpoint(tmp_path / "model", num_layers=3)
    data = ("--task", "custom", "--dataset", rows_csv, "--text-columns", "text,other", "--label-column", "amount")
    more = ("--layers", "2", "--epochs", 1, "--no-profile", "--head", "mean", "--accumulation", 2)

    answer = command("run", source, *data, *more, "--gradient-checkpointing", "--heal", "distill", "--output", "out")

    assert answer.status == 0, answer
    records = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/record.json")]
    assert {record["spec"]["heal"]["head"] for record in records} == {"mean"} and len(records) == 2
    answer = command("drop", "out", "--layers", 0, "--output", "cut")
    assert answer.status == 0, answer
    answer = command("evaluate", "cut", *data)
    assert answer.status == 0 and "pearson" in answer.out, answer
    answer = command("inspect", "cut")
    assert "head on states pooled by mean: LABEL_0" in answer.out and "1 layers" in answer.out


def test_a_cut_is_repaired_without_training(command, rows_csv, tmp_path):
    from transformers import AutoModelForSequenceClassification

    source = tiny_checkpoint(tmp_path / "model", num_layers=3)
    more = ("--dataset", rows_csv, "--layers", "1", "--epochs", 0, "--no-profile")

    answer = command("run", source, *DATA, *more, "--heal", "linear-patch(examples=40)", "--output", "out")

    assert answer.status == 0, answer
    records = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/record.json")]
    (record,) = [record for record in records if record["spec"]["drop"]["dropped"]]
    assert "linear-patch: a map in layer 0 stands for layer 1" in " ".join(record["outcome"]["notes"])
    assert record["outcome"]["heal"]["steps"] == 0
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config.num_hidden_layers == 2
