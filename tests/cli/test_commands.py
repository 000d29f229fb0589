"""The commands, end to end, on tiny checkpoints and rows made on the spot."""

import json

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from depthprune.experiments.store.predictions import read_predictions
from tiny_models import ARCHITECTURES, tiny_checkpoint

CUSTOM = ("--task", "custom", "--text-columns", "text", "--label-column", "kind", "--epochs", 1)


@pytest.fixture
def run(command, bert, rows_csv):
    """`depthprune run` on the rows, with the strategy top at 2."""
    return lambda *more: command("run", bert, *CUSTOM, "--dataset", rows_csv, "--strategy", "top", "--count", 2, *more)


def test_run_writes_two_records_and_a_plain_checkpoint(run, tmp_path):
    answer = run("--output", "out")

    assert answer.status == 0, answer
    assert "classification: 'kind' has 2 classes (even, odd)" in answer.out
    assert "scored on 8 rows held out of 'train' (10%, of each class)" in answer.out
    assert "classes of the 8 scored rows: 50 % " in answer.out and "largest class" in answer.out
    assert "points, 95 % interval" in answer.out and "over 8 rows: too few rows to tell it from nothing" in answer.out
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.num_hidden_layers == 4 and model.config.id2label == {0: "even", 1: "odd"}
    records = [json.loads(file.read_text()) for file in sorted((tmp_path / "runs").glob("*/record.json"))]
    assert all(record["environment"]["data"]["text_columns"] for record in records), "so that it can be repeated"
    for folder in (file.parent for file in tmp_path.glob("runs/*/record.json")):
        (split,) = (read_predictions(folder) or {}).values()
        right = sum(a == b for a, b in zip(split["expected"], split["predicted"], strict=True)) / len(split["expected"])
        assert right == json.loads((folder / "record.json").read_text())["outcome"]["metrics"]["accuracy"]["value"]
    assert sorted(len(record["outcome"]["plan"]["dropped"]) for record in records) == [0, 2]
    for record in records:
        assert record["spec"]["model"].startswith("sha256:") and str(tmp_path) not in json.dumps(record["spec"])
        assert record["outcome"]["metrics"]["accuracy"]["examples"] == 8
        assert record["environment"]["packages"]["torch"] == torch.__version__


def test_the_same_run_again_returns_the_record_and_force_runs_anew(run, tmp_path):
    assert run().out.count("done now") == 2
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("runs/*/record.json")}

    again = run()

    assert again.out.count("stored before") == 2
    assert "full model:" not in again.out, "a stored run has no stages"
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.glob("runs/*/record.json")}
    assert run("--force").out.count("done now") == 2
    assert all(file.stat().st_mtime_ns > then for file, then in before.items())


def test_no_epochs_score_the_model_as_given_and_the_cut_untrained(command, tmp_path, rows_csv):
    source = tiny_checkpoint(tmp_path / "tuned", head="classification", num_layers=3)
    arguments = ("--text-columns", "text", "--label-column", "kind", "--dataset", rows_csv)
    given = command("evaluate", source, "--task", "custom", *arguments)

    answer = command("run", source, "--task", "custom", *arguments, "--epochs", 0, "--strategy", "top", "--count", 1)

    assert answer.status == 0, answer
    assert given.out.split("accuracy ")[1].split()[0] in answer.out
    assert "random" not in answer.out
    records = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/record.json")]
    assert [record["outcome"]["heal"]["steps"] for record in records] == [0, 0]
    assert all(record["spec"]["heal"]["num_epochs"] == 0 for record in records)


def test_no_epochs_and_a_fresh_head_is_said_to_mean_nothing(run):
    answer = run("--epochs", 0)

    assert answer.status == 0, answer
    assert "'classifier.bias' is random" in answer.out and "mean nothing" in answer.out


def test_force_without_saving_leaves_no_older_checkpoint_beside_the_new_record(bert, rows_csv, tmp_path):
    from depthprune.experiments.comparison import compare
    from depthprune.specs import HealSpec
    from depthprune.tasks import TaskOptions

    data = TaskOptions(str(rows_csv), ("text",), "kind")
    more = {"layers": "5", "options": data, "heal": HealSpec(num_epochs=1), "store": tmp_path, "device": "cpu"}
    first = compare(str(bert), "custom", **more).pruned
    assert first.model is not None
    written = (first.model / "model.safetensors").stat().st_mtime_ns

    second = compare(str(bert), "custom", **more, save=False, force=True).pruned

    assert second.model == first.model, "what was kept stays kept, as it is now"
    assert (second.model / "model.safetensors").stat().st_mtime_ns > written


def test_layers_that_a_strategy_also_chooses_share_its_run(run, command, bert, rows_csv, tmp_path):
    run()

    answer = command("run", bert, *CUSTOM, "--dataset", rows_csv, "--layers", "4-5")

    assert answer.out.count("stored before") == 2
    assert len(list(tmp_path.glob("runs/*/record.json"))) == 2


def test_an_interrupt_leaves_the_store_as_it_was(run, tmp_path, monkeypatch):
    import depthprune.healing.training as training

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Trainer, "training_step", interrupt)

    answer = run()

    assert answer.status == 130 and "interrupted" in answer.err
    assert [path.name for path in tmp_path.glob("runs/*")] == ["measured"], "what was measured is true all the same"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_drop_keeps_a_trained_head_and_loads_plainly(command, tmp_path, name):
    source = tiny_checkpoint(tmp_path / "model", name, head="classification", num_layers=5)

    answer = command("drop", source, "--layers", "1,3", "--output", "out")

    assert answer.status == 0, answer
    full, cut = (AutoModelForSequenceClassification.from_pretrained(tmp_path / at) for at in ("model", "out"))
    assert cut.config.num_hidden_layers == 3
    head = {n: t for n, t in full.state_dict().items() if not n.startswith(f"{full.base_model_prefix}.")}
    assert head
    assert all(torch.equal(tensor, cut.state_dict()[name]) for name, tensor in head.items())
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_drop_of_a_cut_model_keeps_its_history(command, bert, tmp_path):
    command("drop", bert, "--strategy", "top", "--count", 2, "--output", "once")
    command("drop", "once", "--layers", "0", "--output", "twice")

    cuts = json.loads((tmp_path / "twice" / "depthprune.json").read_text())["cuts"]
    stacks = [cut["stacks"]["layers"] for cut in cuts]
    assert [(stack["depth"], stack["dropped"]) for stack in stacks] == [(6, [4, 5]), (4, [0])]
    assert stacks[1]["original_kept"] == [1, 2, 3] and cuts[0]["strategy"] == "top"
    assert AutoModel.from_pretrained(tmp_path / "twice").config.num_hidden_layers == 3


def test_a_refused_layer_names_the_reason_before_anything_is_trained(command, rows_csv, tmp_path):
    source = tiny_checkpoint(tmp_path / "model", "modernbert", num_layers=5)

    answer = command("run", source, *CUSTOM, "--dataset", rows_csv, "--strategy", "bottom", "--count", 1)

    assert answer.status == 2 and "keep layer 0" in answer.err and "attn_norm" in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_drop_then_finetune_then_evaluate(command, bert, rows_csv, tmp_path):
    (tmp_path / "data").mkdir()
    head, *lines = rows_csv.read_text().splitlines(keepends=True)
    (tmp_path / "data" / "train.csv").write_text("".join([head, *lines[:64]]))
    (tmp_path / "data" / "test.csv").write_text("".join([head, *lines[64:]]))
    data = ("--task", "custom", "--text-columns", "text,other", "--label-column", "amount", "--dataset", "data")
    assert command("drop", bert, "--strategy", "odd-alternate", "--count", 2, "--output", "short").status == 0
    tuned = command("finetune", "short", *data, "--epochs", 2, "--output", "tuned")
    assert tuned.status == 0 and "regression: 'amount' holds numbers with a fraction" in tuned.out

    answer = command("evaluate", "tuned", *data)

    assert answer.status == 0, answer
    cuts = json.loads((tmp_path / "tuned" / "depthprune.json").read_text())["cuts"]
    assert [cut["stacks"]["layers"]["dropped"] for cut in cuts] == [[2, 4]], "fine-tuning is no cut"
    card = (tmp_path / "tuned" / "README.md").read_text()
    assert "4 of 6 layers" in card and "Training after the cut: 2 epochs on custom" in card
    said = [line for line in answer.out.splitlines() if "pearson" in line]
    assert said and said[0].split("pearson ")[1] in tuned.out
    # A file that is only to be scored is scored whole.
    answer = command("evaluate", "tuned", *data[:-1], "data/test.csv")
    assert answer.status == 0 and said[0] in answer.out and "scored on all 16 rows" in answer.out, answer
    answer = command("evaluate", "tuned", *data, "--eval-split", "train")
    assert answer.status == 0 and "(64 examples)" in answer.out, answer


def test_a_pickle_is_read_when_it_is_allowed(command, bert, tmp_path):
    import shutil

    from safetensors.torch import load_file

    source = tmp_path / "model"
    shutil.copytree(bert, source, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(load_file(bert / "model.safetensors"), source / "pytorch_model.bin")

    answer = command("drop", source, "--strategy", "top", "--count", 2, "--output", "out", "--allow-pickle")

    assert answer.status == 0, answer
    assert [file.name for file in (tmp_path / "out").glob("*.safetensors")] == ["model.safetensors"]


def test_a_checkpoint_with_more_than_its_class_takes_is_kept_whole(command, tmp_path):
    """bert-base-cased names BertForMaskedLM and holds a pooler and a sentence head besides."""
    from transformers import BertForPreTraining

    from tiny_models import build, tiny_tokenizer

    source = tmp_path / "model"
    full = build(BertForPreTraining, ARCHITECTURES["bert"].make_config(5))
    full.save_pretrained(source)
    tiny_tokenizer().save_pretrained(source)
    config = json.loads((source / "config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
    (source / "config.json").write_text(json.dumps(config))

    answer = command("drop", source, "--layers", "1", "--output", "out")

    assert answer.status == 0, answer
    cut = BertForPreTraining.from_pretrained(tmp_path / "out").state_dict()
    for name in ("bert.pooler.dense.weight", "cls.seq_relationship.weight"):
        assert torch.equal(cut[name], full.state_dict()[name])


MODELLING = """
import pathlib
from transformers import BertConfig, BertModel

pathlib.Path(__file__).with_name("ran").touch()

class MineConfig(BertConfig):
    model_type = "mine"

class Mine(BertModel):
    config_class = MineConfig
"""


def test_code_that_a_model_brings_runs_only_when_it_is_trusted(command, bert, tmp_path):
    import shutil

    source = tmp_path / "model"
    shutil.copytree(bert, source)
    (source / "modelling.py").write_text(MODELLING.replace("__file__", repr(str(source / "modelling.py"))))
    own = {"model_type": "mine", "architectures": ["Mine"]}
    own["auto_map"] = {"AutoConfig": "modelling.MineConfig", "AutoModel": "modelling.Mine"}
    (source / "config.json").write_text(json.dumps(json.loads((source / "config.json").read_text()) | own))
    arguments = ("drop", source, "--strategy", "top", "--count", 2, "--output", "out")

    assert command(*arguments).status == 2 and not (source / "ran").exists()
    answer = command(*arguments, "--trust-remote-code")
    assert answer.status == 2 and "brings its own code" in answer.err and "add --verify logits" in answer.err
    dry = command(*arguments[:-2], "--dry-run", "--trust-remote-code")
    assert dry.status == 0 and "the cut will need --verify logits" in dry.out
    answer = command(*arguments, "--trust-remote-code", "--verify", "logits")

    assert answer.status == 0 and "outputs are equal, bit for bit" in answer.out, answer
    assert (source / "ran").exists()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 4


def test_a_known_architecture_is_loaded_without_the_code_it_brings(command, bert, tmp_path):
    import shutil

    source = tmp_path / "model"
    shutil.copytree(bert, source)
    (source / "modelling.py").write_text("raise SystemError('this must not run')")
    own = {"auto_map": {"AutoModel": "modelling.Mine"}}
    (source / "config.json").write_text(json.dumps(json.loads((source / "config.json").read_text()) | own))

    answer = command("drop", source, "--strategy", "top", "--count", 2, "--output", "out")

    assert answer.status == 0, answer


def test_inspect_shows_stack_parameters_and_choices(command, bert):
    answer = command("inspect", bert)

    assert answer.status == 0, answer
    assert "stack 'layers' at encoder.layer: 6 layers" in answer.out
    assert answer.out.count(" parameters\n") >= 7 and "3,5" in answer.out


def test_the_table_fits_a_terminal_of_eighty_columns(command, bert, rows_csv):
    answer = command("run", bert, *CUSTOM, "--dataset", rows_csv, "--strategy", "even-alternate", "--count", 2)
    table = answer.out.split("on custom")[1].split("full: accuracy")[0]

    assert "even-alternate" in table and "100.0%" in table and "…" not in table
    assert max(map(len, table.splitlines())) <= 80


def test_list_names_every_strategy_and_task(command):
    answer = command("list")

    for name in ("top", "odd-alternate", "mrpc", "mnli", "docstrings", "custom"):
        assert f"  {name} " in answer.out
