"""`depthprune heal` says what it did in a few lines, and a mistake in one."""

import json
import re

import pytest

from depthprune.checkpoints.history import ONLY_STACK, provenance
from depthprune.checkpoints.save import save_made
from depthprune.loading import load_model
from depthprune.plan import LayerPlan
from depthprune.sources import locate
from depthprune.surgery import drop_layers
from tiny_models import words


@pytest.fixture(scope="module")
def cut(bert, tmp_path_factory):
    source, plan = locate(bert), LayerPlan(6, (1, 3))
    target = tmp_path_factory.mktemp("cut") / "cut"
    return save_made(
        drop_layers(load_model(source), plan), target, source=source, provenance=provenance(source, {ONLY_STACK: plan})
    )


def test_a_cut_checkpoint_is_healed_on_a_file(command, bert, cut, tmp_path):
    (tmp_path / "lines.txt").write_text(words(60 * 6, line=6))
    common = ("heal", cut, "--teacher", bert, "--data", "lines.txt", "--output", "out", "--quiet")
    wrong = command(*common, "--heal", "embeding")
    assert wrong.status == 2 and "did you mean 'embedding'?" in wrong.err and len(wrong.err.splitlines()) == 1
    none = command(*common[:4], *common[6:])
    assert none.status == 2 and none.err == "depthprune: say what to train on: --data FILE with texts, or --task\n"
    assert not (tmp_path / "out").exists()

    done = command(*common, "--epochs", "1", "--learning-rate", "3e-3", "--batch-size", "16", "--held-out", "9")
    assert done.status == 0 and done.err == ""
    lines = done.out.splitlines()
    assert lines[0].startswith("trained on 51 texts in ") and len(lines) == 3
    assert lines[1].startswith("mean cosine to the full model's embeddings on 9 other texts: 0.")
    assert lines[2] == "checkpoint: out (proved: plain from_pretrained takes exactly these tensors)"
    assert json.loads((tmp_path / "out" / "depthprune.json").read_text())["healed"]["recipe"] == "embedding"


def test_a_cut_checkpoint_is_repaired_without_training(command, bert, cut, tmp_path):
    (tmp_path / "lines.txt").write_text(words(60 * 6, line=6))
    common = ("heal", cut, "--teacher", bert, "--data", "lines.txt", "--output", "out", "--quiet", "--epochs", "0")
    done = command(*common, "--heal", "linear-patch")
    assert done.status == 0, done
    lines = done.out.splitlines()
    assert lines[0].startswith("linear-patch: a map in layer 0 stands for layer 1; ") and len(lines) == 5
    before, after = (float(value) for value in re.findall(r"[01]\.\d+", lines[3]))
    assert before < after
