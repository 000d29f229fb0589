"""`depthprune run --depths`: one training, a checkpoint for each depth."""

import json

import pytest

from tiny_models import tiny_checkpoint

DATA = ("--task", "custom", "--text-columns", "text", "--label-column", "kind", "--epochs", 1, "--no-profile")


def test_one_training_writes_and_scores_every_depth(command, rows_csv, tmp_path):
    source = tiny_checkpoint(tmp_path / "model", num_layers=4)

    answer = command("run", source, *DATA, "--dataset", rows_csv, "--depths", "4,3,2", "--output", "curve")

    assert answer.status == 0, answer
    for depth in (4, 3, 2):
        config = json.loads((tmp_path / "curve" / f"depth-{depth}" / "config.json").read_text())
        assert config["num_hidden_layers"] == depth
        assert f"depth {depth}: run " in answer.out and f"curve/depth-{depth}" in answer.out
    records = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/record.json")]
    assert sorted(record["outcome"]["heal"]["steps"] > 0 for record in records) == [False, False, True, True]

    answer = command("report", "runs", "--output", "report.md")
    assert answer.status == 0 and "--depths 4" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    "more, message",
    [
        (("--depths", "5"), "the model has 4 layers and cannot be cut to 5; give depths from 1 to 4"),
        (("--depths", "3,0"), "a depth is the number of layers that are left, 1 or more"),
        (("--depths", "3,3"), "the depth 3 is given twice"),
        (("--depths", "half"), "the depths 'half' are not numbers of layers; write 12,9,6 or 4-12"),
        (("--depths", "4"), "'adaptive-layers' trains depths below the model's 4; ask for one of them, too"),
        (("--depths", "3", "--count", 1), "--depths and --count exclude each other"),
        (("--depths", "3", "--layers", "3"), "--depths and --layers exclude each other"),
        (("--depths", "3", "--heal", "two-step"), "which 'finetune+drop+finetune' has not: give a recipe whose layers"),
        (("--depths", "3", "--heal", "drop+finetune"), "all depths come from one training"),
        (("--depths", "3", "--heal", "freeze(dropped=true)+layerdrop"), "all depths come from one training"),
        (
            ("--depths", "3", "--drop-every", 1),
            "drop_every goes with a model that is cut once; for several depths write",
        ),
        (("--depths", "3", "--strategy", "topp"), "no strategy is named 'topp'; did you mean 'top'?"),
        (("--depths", "1", "--strategy", "even-alternate"), "even-alternate can drop at most 2 of 4 layers, not 3"),
        (("--depths", "3", "--heal", "adaptive-layers(order=3)", "--strategy", "top"), "leave one of them out"),
        (("--depths", "2", "--heal", "adaptive-layers(order=3)"), "and the order has 1"),
        (("--depths", "3", "--heal", "adaptive-layers(depths=4)"), "below the model's 4, not 4"),
        (("--depths", "3", "--heal", "adaptive-layers(order=9)"), "layers [9] do not exist"),
    ],
)
def test_depths_that_cannot_be_are_one_line_and_nothing_is_left_behind(more, message, command, rows_csv, tmp_path):
    tiny_checkpoint(tmp_path / "model", num_layers=4)
    answer = command("run", "model", *DATA, "--dataset", rows_csv, *more)
    assert answer.status == 2 and message in " ".join(answer.err.split()), answer
    assert answer.err.removeprefix("starting\n").count("\n") == 1 and not list(tmp_path.glob("runs/*"))


def test_a_layer_that_cannot_go_is_named_before_anything_is_trained(command, rows_csv, tmp_path):
    tiny_checkpoint(tmp_path / "model", "modernbert", num_layers=4)
    answer = command("run", "model", *DATA, "--dataset", rows_csv, "--depths", "3", "--strategy", "bottom")
    assert answer.status == 2 and "keep layer 0" in " ".join(answer.err.split()), answer
    assert not list(tmp_path.glob("runs/*"))
