"""Models and data as people have them: no pooler, pairs in a table, texts too long, labels in a column."""

import json

import pytest

from tiny_models import ARCHITECTURES, tiny_checkpoint, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def without_pooler(tmp_path_factory):
    """A BertModel whose checkpoint holds no pooler, as many encoders are saved."""
    folder = tmp_path_factory.mktemp("models") / "bare"
    model = tiny_model("bert", "base", 4)
    model.save_pretrained(folder, state_dict={k: v for k, v in model.state_dict().items() if "pooler" not in k})
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_model_without_a_pooler_is_scored_and_searched_and_it_is_said(command, without_pooler, rows_csv):
    sample = ("--data", rows_csv, "--text-columns", "text", "--samples", 8)
    answer = command("score", without_pooler, "--method", "contribution", *sample)
    assert answer.status == 0, answer.err
    assert "'pooler.dense.bias' is newly initialised: the checkpoint has no pooler (2 tensors)" in " ".join(
        answer.out.split()
    )
    answer = command("search", without_pooler, *sample, "--count", 1, "--output", "found.json")
    assert answer.status == 0 and "has no pooler" in answer.out, answer.err
    data = ("--dataset", rows_csv, "--text-columns", "text", "--label-column", "kind", "--epochs", 0)
    run = ("run", without_pooler, "--task", "custom", *data, "--strategy", "contribution", "--count", 1)
    answer = command(*run, "--device", "cpu")
    assert answer.status == 0, answer.err


def test_own_labelled_pairs_are_scored_and_searched(command, rows_csv, tmp_path):
    row = ARCHITECTURES["bert"]
    from tiny_models import build

    model = build(row.classes["classification"], row.make_config(3, id2label={0: "odd", 1: "even"}))
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    own = ("--data", rows_csv, "--text-columns", "text,other", "--label-column", "kind", "--samples", 20)

    answer = command("score", "model", "--method", "taylor", *own, "--output", "taylor.json")
    assert answer.status == 0, answer.err
    assert "by name: 0 is 'odd', 1 is 'even'" in answer.out and "split train" in answer.out
    answer = command("search", "model", *own, "--objective", "metric", "--task-metric", "matthews", "--count", 1,
                     "--output", "found.json")  # fmt: skip
    assert answer.status == 0, answer.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["objective"]["unit"] == "1 − matthews" and found["calibration"]["split"] == "train"
    answer = command("score", "model", "--method", "contribution", "--data", rows_csv, "--text-columns", "text,other")
    assert answer.status == 0, answer.err


@pytest.mark.parametrize(
    "more, message",
    [
        (("--label-column", "text", "--text-columns", "text"), "'text' cannot be both text and label"),
        (("--label-column", "kind", "--text-columns", "text,nothing"), "has no column 'nothing'"),
        (("--text-columns", "text", "--regression"), "are about labels; add --label-column"),
        (
            ("--label-column", "kind", "--text-columns", "text", "--regression", "--classification"),
            "exclude each other",
        ),
    ],
)
def test_columns_that_cannot_be_are_one_line(command, bert, rows_csv, more, message):
    answer = command("score", bert, "--method", "contribution", "--data", rows_csv, *more)
    assert answer.status == 2 and message in answer.err.splitlines()[-1], answer.err


def test_texts_longer_than_the_model_s_positions_are_one_line(command, tmp_path):
    tiny_checkpoint(tmp_path / "model", "bert", "classification", 2)
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 512  # more than the model has
    tokenizer.save_pretrained(tmp_path / "model")
    lines = ["text,label", *(f"{'ba be bi ' * 20},{'xy'[i % 2]}" for i in range(20))]
    (tmp_path / "long.csv").write_text("\n".join(lines) + "\n")
    own = ("--dataset", "long.csv", "--text-columns", "text", "--label-column", "label", "--max-length", 64)
    for arguments in (
        ("evaluate", "model", "--task", "custom", *own),
        ("finetune", "model", "--task", "custom", *own, "--output", "out"),
        ("score", "model", "--method", "contribution", "--data", "long.csv", "--text-columns", "text", "--length", 64),
    ):
        answer = command(*arguments)
        assert answer.status == 2, answer
        assert "a text of 62 tokens, and 'model' takes 40; give --" in answer.err.splitlines()[-1], answer.err
    answer = command("evaluate", "model", "--task", "custom", *own[:-1], 40)
    assert answer.status == 0, answer.err


def test_the_positions_of_roberta_begin_behind_the_padding():
    from depthprune.loading import num_positions

    assert num_positions(tiny_model("bert", "base", 1)) == 40
    assert num_positions(tiny_model("roberta", "base", 1)) == 39
    assert num_positions(tiny_model("xlnet", "base", 1)) is None
