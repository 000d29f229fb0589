"""Saving: a plain checkpoint or nothing at all."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from depthprune.checkpoints.save import save_checkpoint
from depthprune.errors import CannotDropError, OutputError
from depthprune.output import LOCK
from tiny_models import inputs, output, tiny_checkpoint, tiny_model


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything under `folder`: name → content, or None for a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def model_that_does_not_load_back():
    """Return a model whose configuration is not about it: the checkpoint has layers that loading will not build."""
    model = tiny_model("bert", depth=3)
    model.config.num_hidden_layers = 2
    return model


def test_a_saved_model_is_a_plain_checkpoint(tmp_path):
    model = tiny_model("bert", depth=2)
    assert save_checkpoint(model, str(tmp_path / "made" / "out")) == tmp_path / "made" / "out"
    again = AutoModel.from_pretrained(tmp_path / "made" / "out").eval()
    assert torch.equal(output(again, inputs()), output(model, inputs()))
    assert sorted(tree(tmp_path / "made")) == ["out", "out/config.json", "out/model.safetensors"]


def test_the_data_type_is_kept(tmp_path):
    save_checkpoint(tiny_model("bert", depth=2).to(torch.bfloat16), tmp_path / "out")
    assert AutoModel.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16


def test_an_empty_folder_is_a_target(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    save_checkpoint(tiny_model("bert", depth=2), target)
    assert sorted(tree(tmp_path)) == ["out", "out/config.json", "out/model.safetensors"]


@pytest.mark.parametrize("taken", ["folder", "file"])
def test_a_target_that_is_taken_is_refused_and_left_alone(taken, tmp_path):
    target = tmp_path / "out"
    if taken == "folder":
        target.mkdir()
    (target / "thesis.tex" if taken == "folder" else target).write_text("years of work")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=f"'{target}' exists and is not an empty folder; choose another"):
        save_checkpoint(tiny_model("bert", depth=2), target)
    assert tree(tmp_path) == before


def test_a_target_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=f"'{tmp_path / 'file'}' is not a folder; choose another"):
        save_checkpoint(tiny_model("bert", depth=2), tmp_path / "file" / "out")
    assert tree(tmp_path) == {"file": b""}


def test_a_checkpoint_that_does_not_load_back_is_not_left_behind(tmp_path):
    with pytest.raises(CannotDropError, match=r"does not load back: unexpected keys .*encoder\.layer\.2"):
        save_checkpoint(model_that_does_not_load_back(), tmp_path / "made" / "for" / "out")
    assert tree(tmp_path) == {}


def test_an_empty_target_is_still_there_after_a_failure(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(CannotDropError):
        save_checkpoint(model_that_does_not_load_back(), tmp_path / "out")
    assert tree(tmp_path) == {"out": None}


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    with pytest.raises(OutputError, match=r"no space left for .* takes 0 MB and 0 MB are free; free some"):
        save_checkpoint(tiny_model("bert", depth=2), tmp_path / "made" / "out")
    assert tree(tmp_path) == {}


def test_what_a_killed_run_left_is_replaced(tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "half.safetensors").write_text("half")
    (tmp_path / "out.partial" / LOCK).touch()  # nobody holds it
    save_checkpoint(tiny_model("bert", depth=2), tmp_path / "out")
    assert sorted(tree(tmp_path)) == ["out", "out/config.json", "out/model.safetensors"]


def test_provenance_lies_beside_the_weights_as_it_was_given(tmp_path):
    given = {"source": {"name": "Bücher/bert", "commit": None}, "plan": {"depth": 4, "dropped": [2, 3]}}
    save_checkpoint(tiny_model("bert", depth=2), tmp_path / "out", provenance=given)
    text = (tmp_path / "out" / "depthprune.json").read_text(encoding="utf-8")
    assert json.loads(text) == given
    assert "Bücher" in text, "written for people, so not escaped"


def test_the_files_of_the_tokenizer_are_copied_as_they_are_and_nothing_else(tmp_path):
    source = tiny_checkpoint(tmp_path / "source", num_layers=2)
    config = source / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"kept_by_nobody_else": 1}, indent=7))
    (source / "vocab.txt").write_text("as\nthey\nare\n")
    (source / "notes.txt").write_text("mine")
    save_checkpoint(tiny_model("bert", depth=2), tmp_path / "out", tokenizer_from=source)
    before, after = tree(source), tree(tmp_path / "out")
    copied = {"tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    assert set(after) == copied | {"config.json", "model.safetensors"}
    assert {name: after[name] for name in copied} == {name: before[name] for name in copied}
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("ba be")["input_ids"] == [2, 5, 6, 3]


def test_weights_that_hold_a_nan_are_saved_as_they_are(tmp_path):
    model = tiny_model("bert")
    with torch.no_grad():
        model.pooler.dense.bias[0] = float("nan")

    save_checkpoint(model, tmp_path / "out")

    assert type(model).from_pretrained(tmp_path / "out").pooler.dense.bias[0].isnan()


def test_the_current_folder_is_no_target_and_a_link_to_an_empty_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="current folder"):
        save_checkpoint(tiny_model("bert"), ".")

    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    save_checkpoint(tiny_model("bert"), "link")

    assert (tmp_path / "real" / "config.json").is_file() and (tmp_path / "link").is_symlink()
