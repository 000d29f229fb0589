"""What a user gets wrong: one line that says what and what to do, status 2, and nothing left behind."""

import json
import re
import shutil
from pathlib import Path

import pytest

DROP_TOP = ("--strategy", "top", "--count", "2", "--output", "out")


def changed(bert: Path, target: Path, **config) -> Path:
    """Copy a checkpoint and change its config.json; None removes an entry."""
    shutil.copytree(bert, target)
    entries = json.loads((target / "config.json").read_text()) | config
    (target / "config.json").write_text(json.dumps({k: v for k, v in entries.items() if v is not None}))
    return target


def without(bert: Path, target: Path, *names: str) -> Path:
    shutil.copytree(bert, target, ignore=shutil.ignore_patterns(*names))
    return target


def cut_short(bert: Path, target: Path) -> Path:
    shutil.copytree(bert, target)
    weights = target / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    return target


def pickled(bert: Path, target: Path) -> Path:
    import torch
    from safetensors.torch import load_file

    shutil.copytree(bert, target)
    torch.save(load_file(target / "model.safetensors"), target / "pytorch_model.bin")
    (target / "model.safetensors").unlink()
    return target


MODELS = {
    "no such folder": (lambda bert, at: at, "there is no folder"),
    "a name that is neither a folder nor an id": (lambda bert, at: "a/b/c", "give a model folder or a Hub id"),
    "an id with no network and nothing cached": (
        lambda bert, at: "bert-base-cased",
        "neither reached on the Hub nor found in the cache",
    ),
    "no configuration": (lambda bert, at: without(bert, at, "config.json"), "has no config.json"),
    "a configuration that is not JSON": (
        lambda bert, at: (changed(bert, at) / "config.json").write_text("{") and at,
        "is not JSON",
    ),
    "no weights": (lambda bert, at: without(bert, at, "*.safetensors"), "has no weights"),
    "weights that are cut short": (cut_short, "cut short; download it again"),
    "weights in a pickle": (pickled, "--allow-pickle"),
    "an unknown architecture": (
        lambda bert, at: changed(bert, at, model_type="bertt"),
        "of the architecture 'bertt', which transformers",
    ),
    "no model type": (lambda bert, at: changed(bert, at, model_type=None), "names no model_type"),
    "code of its own": (
        lambda bert, at: changed(bert, at, model_type="mine", auto_map={"AutoModel": "modelling.Model"}),
        "--trust-remote-code",
    ),
    "a depth that the weights do not have": (
        lambda bert, at: changed(bert, at, num_hidden_layers=8),
        "says 8 layers and the weights have no stack of that depth (encoder.layer 6)",
    ),
    "a depth below that of the weights": (
        lambda bert, at: changed(bert, at, num_hidden_layers=4),
        "says 4 layers and the weights have no stack of that depth (encoder.layer 6)",
    ),
}


@pytest.mark.parametrize("make, message", MODELS.values(), ids=list(MODELS))
def test_a_model_that_cannot_be_cut_is_one_line(command, bert, tmp_path, make, message):
    answer = command("drop", make(bert, tmp_path / "model"), *DROP_TOP)

    assert_one_line(answer, message)
    assert not list(tmp_path.glob("out*"))


PLANS = {
    "an unknown strategy": (("--strategy", "topp", "--count", 2), "did you mean 'top'?"),
    "a stack that does not exist": (("--layers", "encoder=1"), "no stack 'encoder'"),
    "a level of proof that does not exist": (("--layers", "1", "--verify", "all"), "headers, full, logits"),
    "a count of 0": (("--strategy", "top", "--count", 0), "a number from 1 to 5"),
    "a count of every layer": (("--strategy", "top", "--count", 6), "a number from 1 to 5"),
    "a negative count": (("--strategy", "top", "--count", -1), "a number from 1 to 5"),
    "a count that symmetric cannot serve": (("--strategy", "symmetric", "--count", 3), "nearest possible: 2 or 4"),
    "a count that is no number": (("--strategy", "top", "--count", "two"), "--count"),
    "a strategy without a count": (("--strategy", "top"), "needs --count"),
    "a count without a strategy": (("--layers", "1", "--count", 2), "needs a strategy"),
    "no choice at all": ((), "say which layers to drop"),
    "a layer named twice": (("--layers", "1,1"), "given twice"),
    "a layer named twice with a space": (("--layers", "1 1"), "given twice"),
    "a negative layer": (("--layers=-1",), "count from 0"),
    "a layer that does not exist": (("--layers", "4-6"), "layers 0 to 5"),
    "every layer": (("--layers", "0-5"), "leaves no model"),
    "no layer kept": (("--keep", ""), "not a list of layers"),
    "layers and keep": (("--layers", "1", "--keep", "2"), "exclude each other"),
    "a range that runs backwards": (("--layers", "4-2"), "write 2-4"),
    "an option that does not exist": (("--layer", "1"), "No such option"),
}


@pytest.mark.parametrize("arguments, message", PLANS.values(), ids=list(PLANS))
def test_a_plan_that_cannot_be_is_one_line(command, bert, tmp_path, arguments, message):
    answer = command("drop", bert, "--output", "out", *arguments)

    assert_one_line(answer, message)
    assert not list(tmp_path.iterdir())


COLUMNS = ("--task", "custom", "--dataset", "CSV", "--text-columns", "text", "--label-column", "kind")
TASKS = {
    "an unknown task": (("--task", "mrcp"), "did you mean 'mrpc'?"),
    "no task": ((), "Missing option '--task'"),
    "a data set that is not there": (("--task", "mrpc", "--dataset", "nowhere"), "neither a local folder nor"),
    "a folder without data": (("--task", "mrpc", "--dataset", "."), "the folder '.' (mrpc) has no data"),
    "a data set on the Hub with no network": (
        ("--task", "mrpc"),
        "'nyu-mll/glue' (mrpc) is neither a local folder nor",
    ),
    "columns for a fixed task": (("--task", "mrpc", "--text-columns", "a"), "use --task custom"),
    "no data": (("--task", "custom"), "needs --dataset"),
    "no columns": (("--task", "custom", "--dataset", "CSV"), "needs --text-columns"),
    "no label": (("--task", "custom", "--dataset", "CSV", "--text-columns", "text"), "needs --label-column"),
    "a column that is missing": (
        ("--task", "custom", "--dataset", "CSV", "--text-columns", "txet", "--label-column", "kind"),
        "no column 'txet'; it has 'text'",
    ),
    "a row without a label": (
        ("--task", "custom", "--dataset", "CSV", "--text-columns", "text", "--label-column", "gap"),
        "has no label",
    ),
    "a text column of numbers": (
        ("--task", "custom", "--dataset", "CSV", "--text-columns", "amount", "--label-column", "kind"),
        "has no text in 'amount'",
    ),
    "a split that is missing": (
        (*COLUMNS, "--eval-split", "dev"),
        "no split 'dev'; it has 'train'",
    ),
    "a file of another kind": (
        ("--task", "custom", "--dataset", "DOC", "--text-columns", "text", "--label-column", "kind"),
        "not a supported data file",
    ),
    "a learning rate of 3": (("--task", "docstrings", "--learning-rate", 3), "out of range"),
    "a precision that does not exist": (("--task", "docstrings", "--precision", "int8"), "auto, float32, bfloat16"),
    "a device that is not there": (("--task", "docstrings", "--device", "tpu"), "no device 'tpu'"),
}


@pytest.mark.parametrize("arguments, message", TASKS.values(), ids=list(TASKS))
def test_a_run_that_cannot_be_is_one_line(command, bert, rows_csv, tmp_path, arguments, message):
    document = tmp_path / "rows.docx"
    document.write_bytes(b"no table")
    files = {"CSV": rows_csv, "DOC": document}

    answer = command("run", bert, "--strategy", "top", "--count", 2, *(files.get(a, a) for a in arguments))

    assert_one_line(answer, message)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.docx"]


def test_an_output_that_holds_something_is_refused_before_the_work(command, bert, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")

    for arguments in (("drop", bert, *DROP_TOP), ("run", bert, "--task", "docstrings", *DROP_TOP)):
        assert_one_line(command(*arguments), "exists and is not an empty folder")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_one_line_and_leaves_nothing(command, bert, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))

    answer = command("drop", bert, "--strategy", "top", "--count", 2, "--output", "new/out")

    assert_one_line(answer, "no space left")
    assert not list(tmp_path.iterdir())


def test_evaluating_a_model_without_a_trained_head_says_to_train_one(command, bert):
    assert_one_line(command("evaluate", bert, "--task", "docstrings"), "no trained head")


def test_a_model_without_a_tokenizer_is_one_line(command, bert, rows_csv, tmp_path):
    model = without(bert, tmp_path / "model", "tokenizer*", "special_tokens_map.json")

    answer = command(
        "run", model, "--task", "custom", "--dataset", rows_csv, "--text-columns", "text", "--label-column", "kind"
    )

    assert_one_line(answer, "tokenizer")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def assert_one_line(answer, message: str) -> None:
    assert answer.status == 2, answer
    *progress, last = answer.err.splitlines()
    assert last.startswith("depthprune: ") and message in last
    assert all(re.match(r"starting|loading|(full|pruned) model: \w+", line) for line in progress), answer.err
