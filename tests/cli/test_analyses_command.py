"""`depthprune probe` and `depthprune similarity`, end to end."""

import json

import pytest

from tiny_models import tiny_checkpoint

CUSTOM = ("--task", "custom", "--text-columns", "text", "--label-column", "kind")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A model of another depth."""
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "other", num_layers=5)


def test_a_fine_tuned_model_is_probed_and_compared_and_reported(command, bert, rows_csv, tmp_path):
    given = (*CUSTOM, "--dataset", rows_csv)
    assert command("run", bert, *given, "--epochs", 1).status == 0
    (tuned,) = tmp_path.glob("runs/*/model")

    answer = command("probe", tuned, *given, "--samples", 40, "--output", "values.json")

    assert answer.status == 0, answer.err
    assert "bert fine-tuned on custom, custom, first token" in answer.out
    assert "the embeddings" in answer.out and "1 layer " in answer.out and "6 layers" in answer.out
    assert "fitted on 40 rows, scored on 8" in answer.out and "(done now)" in answer.out
    (file,) = tmp_path.glob("runs/analyses/probe-*.json")
    assert json.loads(file.read_text()) == json.loads((tmp_path / "values.json").read_text())
    again = command("probe", tuned, *given, "--samples", 40)
    assert "(stored before)" in again.out and "40 rows" in again.out
    assert again.err == "loading the model\n"
    assert "rows 40/40" not in again.out, "nothing was run"
    assert "(done now)" in command("probe", tuned, *given, "--samples", 40, "--force").out

    answer = command("similarity", bert, tuned, *given, "--token", "first,mean", "--output", "both.json")

    assert answer.status == 0, answer.err
    assert "bert against bert fine-tuned on custom, custom, first token, mean of the tokens" in answer.out
    assert "cosine, mean of the tokens" in answer.out and "mean over 8; ± is the standard error" in answer.out
    both = json.loads((tmp_path / "both.json").read_text())
    files = [json.loads(file.read_text()) for file in tmp_path.glob("runs/analyses/similarity-*.json")]
    assert len(files) == 2 and all(record in files and len(record["values"]) == 7 for record in both)

    answer = command("report", "runs")

    assert answer.status == 0, answer.err
    assert "A linear probe on every layer" in answer.out and "| bert against bert fine-tuned on custom |" in answer.out
    assert str(tmp_path) not in "".join(file.read_text() for file in tmp_path.glob("runs/analyses/*"))


def test_the_embedded_task_is_probed(command, bert, tmp_path):
    answer = command("probe", bert, "--task", "docstrings", "--samples", 100, "--token", "last", "--max-length", 16)

    assert answer.status == 0, answer.err
    assert "bert, docstrings, last token" in answer.out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("probe", "BERT", "--token", "middle"), "there is no token 'middle'"),
        (("probe", "BERT", "--samples", "1"), "--samples 1 is too few to learn from"),
        (("probe", "nowhere"), "there is no folder 'nowhere'"),
        (("probe", "BERT", "--output", "no/values.json"), "no folder 'no'"),
        (("probe", "BERT", "--store", "ROWS"), "cannot be written; choose another --store"),
        (("similarity", "BERT", "OTHER"), "give the full fine-tuned model"),
        (("similarity", "BERT", "nowhere"), "there is no folder 'nowhere'"),
        (("similarity", "BERT"), "AFTER"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(arguments, message, command, bert, other, rows_csv, tmp_path):
    places = {"BERT": bert, "OTHER": other, "ROWS": rows_csv}

    answer = command(*(places.get(argument, argument) for argument in arguments), *CUSTOM, "--dataset", rows_csv)

    assert answer.status == 2 and answer.err.count("\n") == 1, answer.err
    assert message in answer.err
    assert list(tmp_path.iterdir()) == []
