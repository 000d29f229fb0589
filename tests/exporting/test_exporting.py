"""Exporters: what holds for every one, how another distribution's is told what it does wrong, and what each writes."""

import json
import tomllib
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import depthprune
from depthprune.errors import LoadError, OutputError, UserError
from depthprune.exporting import Exported, export, registry
from depthprune.exporting.base import Exporter
from tiny_models import tiny_checkpoint

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CARD = "---\nlicense: mit\nlanguage: no\nlibrary_name: transformers\n---\n# `small`\n\nText of the card.\n"


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    folder = tiny_checkpoint(tmp_path / "small", head="classification", num_layers=2)
    (folder / "LICENSE").write_text("be kind")
    (folder / "README.md").write_text(CARD)
    (folder / "depthprune.json").write_text('{"cuts": []}')
    return folder


@pytest.mark.parametrize("name", registry.names())
def test_every_exporter_writes_a_folder_proves_it_and_leaves_the_checkpoint_alone(name, checkpoint, tmp_path):
    part, before = registry.get(name), files_in(checkpoint)
    assert part.summary and (part.extra is None or part.extra in PROJECT["optional-dependencies"])

    exported = export(checkpoint, str(tmp_path / "out"), name)

    assert exported.path == tmp_path / "out" and files_in(exported.path) and exported.proof
    assert "\n" not in exported.proof and not exported.proof.endswith(".")
    assert files_in(checkpoint) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "small"]
    with pytest.raises(OutputError, match="exists and is not an empty folder"):
        export(checkpoint, tmp_path / "out", name)
    with pytest.raises(OutputError, match="is inside the model's own folder"):
        export(checkpoint, checkpoint / "out", name)
    with pytest.raises(UserError, match=rf"'{name}'.*'nothing'"):
        export(checkpoint, tmp_path / "more", name, {"nothing": 1})


def other(name: str, function, monkeypatch) -> None:
    """Register an exporter as another distribution does, for one test."""
    registry.names()
    monkeypatch.setitem(registry._parts, name, Exporter(name, function, None, depthprune.exporting.base.NoOptions))


def test_an_exporter_that_does_not_say_what_it_wrote_is_named_and_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    def silent(folder, target, options):
        (target / "weights").write_text("x")

    other("silent", silent, monkeypatch)
    with pytest.raises(UserError, match="the exporter 'silent' returned NoneType instead of Exported") as caught:
        export(checkpoint, tmp_path / "out", "silent")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_the_folder_gets_its_name_only_when_the_exporter_is_done(checkpoint, tmp_path, monkeypatch):
    def copies(folder, target, options):
        assert not (tmp_path / "out").exists() and target.is_dir()
        (target / "config.json").write_bytes((folder / "config.json").read_bytes())
        return Exported(target, "every byte is the same")

    other("copy", copies, monkeypatch)
    assert export(checkpoint, tmp_path / "out", "copy") == Exported(tmp_path / "out", "every byte is the same")
    with pytest.raises(UserError, match="the exporter 'copy' has no options"):
        export(checkpoint, tmp_path / "more", "copy", {"size": 1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("onxx",), "no exporter is named 'onxx'"),
        (("sentence-transformers", {"pooling": "first"}), "there is no pooling 'first'; it is one of mean, cls"),
        (("sentence-transformers", {"pooling": 3}), "the option 'pooling' is text, not 3"),
        (("sentence-transformers", {"normalize": "perhaps"}), "the option 'normalize' is true or false, not 'perhaps'"),
        (("sentence-transformers", {"poolin": "cls"}), "did you mean 'pooling'?"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_one_line(arguments, message, checkpoint, tmp_path):
    with pytest.raises(UserError) as caught:
        export(checkpoint, tmp_path / "out", *arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_folder_that_is_no_finished_checkpoint_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no folder"):
        export(tmp_path / "nowhere", tmp_path / "out", "sentence-transformers")
    with pytest.raises(LoadError, match=r"has no config\.json"):
        export(tmp_path / "empty", tmp_path / "out", "sentence-transformers")


def test_weights_in_a_pickle_are_refused_by_exports_and_by_cuts_of_files(checkpoint, tmp_path):
    torch.save({}, checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(LoadError, match=r"pickle \(pytorch_model\.bin\).*save the model again with save_pretrained"):
        export(checkpoint, tmp_path / "out", "sentence-transformers")
    with pytest.raises(LoadError, match=r"pickle \(pytorch_model\.bin\).*use drop_layers and save_checkpoint"):
        depthprune.drop_checkpoint(checkpoint, tmp_path / "out", [1])


def vectors(folder: Path, texts: list[str]) -> torch.Tensor:
    return SentenceTransformer(str(folder), device="cpu").encode(texts, convert_to_tensor=True)


def test_a_sentence_folder_pools_as_it_is_asked_to_and_still_is_the_checkpoint(checkpoint, tmp_path):
    texts = ["ba be bi", "fo fu da de", "ga"]
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    with torch.no_grad():
        first = torch.stack([model.base_model(**tokenizer(t, return_tensors="pt"))[0][0, 0] for t in texts])

    depthprune.export(checkpoint, tmp_path / "mean", "sentence-transformers")
    done = depthprune.export(
        checkpoint, tmp_path / "cls", "sentence-transformers", {"pooling": "cls", "normalize": True}
    )

    torch.testing.assert_close(vectors(done.path, texts), torch.nn.functional.normalize(first))
    assert not torch.allclose(vectors(tmp_path / "mean", texts), first)
    types = [entry["type"].rpartition(".")[2] for entry in json.loads((done.path / "modules.json").read_text())]
    assert types == ["Transformer", "Pooling", "Normalize"]
    source, written = files_in(checkpoint), files_in(done.path)
    assert set(written) == {*source, "modules.json", "1_Pooling/config.json"}
    assert {name for name in source if source[name] != written[name]} == {"README.md"}
    card = (done.path / "README.md").read_text(encoding="utf-8")
    assert "library_name: sentence-transformers" in card and "license: mit" in card and "language: 'no'" in card
    assert (
        card.count("---\n") == 2 and "also loads with `sentence-transformers`" in card and "Text of the card." in card
    )
    with pytest.raises(UserError, match="is a sentence-transformers folder already"):
        export(done.path, tmp_path / "again", "sentence-transformers")


def test_a_model_without_a_tokenizer_or_with_another_one_is_refused(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match="has no tokenizer"):
        export(checkpoint, tmp_path / "out", "sentence-transformers")
    (checkpoint / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="makes no states of sentences"):
        export(checkpoint, tmp_path / "out", "sentence-transformers")
    assert config["model_type"] == "bert" and not (tmp_path / "out").exists()


def test_other_vectors_than_the_models_are_refused_and_nothing_is_left(checkpoint, tmp_path, monkeypatch):
    from depthprune.pooled import folder

    wrong = {**folder.ENTRIES, "cls": "pooling_mode_max_tokens", "max": "pooling_mode_cls_token"}
    monkeypatch.setattr(folder, "ENTRIES", wrong)

    with pytest.raises(UserError, match="makes another vector of"):
        export(checkpoint, tmp_path / "out", "sentence-transformers", {"pooling": "cls"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small"]
