"""A causal language model on running text, as a person types it."""

import json

import pytest

from tiny_models import tiny_decoder, words

TASK = "language-modelling"


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return tiny_decoder(tmp_path_factory.mktemp("models") / "llama", num_layers=3)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "lines.txt"
    file.write_text(words(1200))
    return file


def test_run_reports_both_perplexities_and_a_stored_run_is_read_back(command, decoder, text, tmp_path):
    arguments = ("--task", TASK, "--dataset", text, "--max-length", 16, "--store", tmp_path / "runs")
    answer = command(
        "run", decoder, *arguments, "--epochs", 0, "--strategy", "greedy", "--count", 1, "--output", tmp_path / "cut"
    )

    assert answer.status == 0, answer
    records = {len(r["spec"]["drop"]["dropped"]): r for file in tmp_path.glob("runs/*/record.json")
               if (r := json.loads(file.read_text()))}  # fmt: skip
    full, cut = (records[n]["outcome"]["metrics"]["perplexity"] for n in (0, 1))
    assert full["better"] == "lower" and full["unit"] == "" and full["standard_error"] > 0
    shown = " ".join(answer.out.split())
    assert "(score: perplexity, lower is better; ms an example)" in shown and "largest class" not in shown
    ratio = f"{cut['value'] / full['value']:.2f}"
    assert (
        f"{ratio} × the full model's perplexity: lost {cut['value'] - full['value']:.2f}, 95 % interval" in answer.out
    )
    given = command("evaluate", tmp_path / "cut", "--task", TASK, "--dataset", text, "--max-length", 16)
    assert given.status == 0 and "perplexity " in given.out and "(75 examples, standard error" in given.out
    status = command("status", "--store", tmp_path / "runs").out
    assert TASK in status and f"{cut['value']:.2f}" in status and f"{ratio}×" in status


def test_text_that_is_shorter_than_a_block_is_refused_and_so_are_its_layers_analysed(decoder, text, command, tmp_path):
    (tmp_path / "short.txt").write_text("ba be bi\n" * 3)
    answer = command("evaluate", decoder, "--task", TASK, "--dataset", "short.txt", "--max-length", 16)
    assert answer.status == 2 and "the text of 'train' is shorter than one block of 16 tokens" in answer.err
    answer = command("probe", decoder, "--task", TASK, "--dataset", text)
    assert answer.status == 2 and "layers are analysed on a classification or a regression" in answer.err
