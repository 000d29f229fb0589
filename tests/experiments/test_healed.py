"""A checkpoint that was cut already is healed, and stays the plain folder that it was."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

import depthprune
from depthprune import CalibrationOptions, HealSpec, TaskOptions, UserError
from depthprune.checkpoints.history import ONLY_STACK, original_kept, provenance, read_history
from depthprune.checkpoints.save import save_made
from depthprune.experiments.healed.pair import find_pair
from depthprune.healing.recipe import parse_recipe
from depthprune.loading import load_model
from depthprune.plan import LayerPlan
from depthprune.sources import locate
from depthprune.surgery import drop_layers
from tiny_models import tiny_checkpoint, tiny_tokenizer, words

QUICK = HealSpec(num_epochs=6, batch_size=16, learning_rate=3e-3, precision="float32", similar_lengths=True)
CARD = "---\npipeline_tag: sentence-similarity\ntags: [feature-extraction]\n---\nHi.\n"


def full_model(folder: Path, *, pooling: str = "mean", inside: str = "", dtype=torch.float32, head="base") -> Path:
    """A sentence-transformers folder, its transformer at the top or in a folder of its own."""
    tiny_checkpoint(folder / inside, "bert", head, 4)
    model: Any = load_model(locate(folder / inside))
    model.to(dtype).save_pretrained(folder / inside)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}_tokens": True}))
    modules = [{"path": inside, "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "README.md").write_text(CARD)
    return folder


def cut_model(full: Path, target: Path, dropped=(1, 2), inside: str = "") -> Path:
    source, plan = locate(full / inside), LayerPlan(4, dropped)
    model = drop_layers(load_model(source), plan)
    return save_made(model, target, source=source, provenance=provenance(source, {ONLY_STACK: plan}), root=full)


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("healed")
    cut_model(full_model(folder / "full"), folder / "cut")
    (folder / "lines.txt").write_text(words(100 * 6, line=6))
    text = words(40 * 3, line=3, seed=1).splitlines()
    rows = [f"{one},{two},{i}.5" for i, (one, two) in enumerate(zip(text[:20], text[20:], strict=True))]
    (folder / "pairs.csv").write_text("a,b,amount\n" + "\n".join(rows) + "\n")
    return folder


def heal(folder: Path, target: Path, *, cut="cut", full="full", data: str | None = "lines.txt", **more):
    more = {"data": str(folder / data) if data else None, "recipe": QUICK, "device": "cpu", **more}
    return depthprune.heal(str(folder / cut), str(folder / full), target, **more)


def weights(folder: Path, kind=AutoModel) -> dict[str, torch.Tensor]:
    return kind.from_pretrained(folder, dtype="auto").state_dict()


def test_the_healed_model_is_closer_to_the_full_one_and_the_same_kind_of_folder(here, tmp_path):
    done = heal(here, tmp_path / "out")
    assert done.cosine is not None and done.cosine[1] > done.cosine[0] + 0.05
    assert done.texts == (90, 10) and done.training.steps == 36 and done.scores == {} and done.kept("healed") is None
    names = {str(file.relative_to(here / "cut")) for file in (here / "cut").rglob("*") if file.is_file()}
    assert names == {str(file.relative_to(done.path)) for file in done.path.rglob("*") if file.is_file()}
    assert original_kept(read_history(done.path), "layers", 2) == (0, 3)
    said = json.loads((done.path / "depthprune.json").read_text())["healed"]
    assert said["teacher"] == locate(here / "full").identity and said["cosine"] == list(done.cosine)
    card = (done.path / "README.md").read_text()
    assert "library_name: sentence-transformers" in card and "pipeline_tag: sentence-similarity" in card
    assert "on 90 texts without labels, taught by full; mean cosine to its embeddings on 10 other texts" in card
    again = heal(here, tmp_path / "again")
    assert again.cosine == done.cosine
    assert all(torch.equal(tensor, weights(again.path)[name]) for name, tensor in weights(done.path).items())


def test_the_cosine_of_pairs_is_scored_for_full_cut_and_healed(here, tmp_path):
    options = TaskOptions(str(here / "pairs.csv"), ("a", "b"), "amount")
    done = heal(here, tmp_path / "out", task="custom", options=options)
    assert list(done.scores) == ["full", "cut", "healed"] and done.primary == "spearman"
    assert {metric.examples for metrics in done.scores.values() for metric in metrics.values()} == {2}
    assert done.kept("full") in (1, None)


def test_the_texts_of_a_task_do_without_its_labels(here, tmp_path):
    done = heal(here, tmp_path / "out", data=None, task="custom",
                options=TaskOptions(str(here / "pairs.csv"), ("a", "b"), "amount"))  # fmt: skip
    assert sum(done.texts) == 36 and done.cosine is not None and list(done.scores) == ["full", "cut", "healed"]


def test_weights_stay_in_the_dtype_and_the_transformer_in_its_folder(tmp_path):
    cut_model(full_model(tmp_path / "full", inside="0_Transformer", dtype=torch.float16), tmp_path / "cut",
              inside="0_Transformer")  # fmt: skip
    (tmp_path / "lines.txt").write_text(words(40 * 6, line=6))
    done = heal(tmp_path, tmp_path / "out")
    found = weights(done.path / "0_Transformer")
    assert {tensor.dtype for tensor in found.values()} == {torch.float16} and (done.path / "modules.json").is_file()
    assert done.cosine is not None and done.cosine[1] > done.cosine[0]


def test_long_texts_are_cut_and_it_is_said(here, tmp_path):
    done = heal(here, tmp_path / "out", max_length=7)
    assert done.notes[0] == "90 of the texts are longer than 7 tokens and were cut"
    assert done.notes[1].startswith("the teacher's hidden states: computed once; its states take 0.")


def test_a_cut_classifier_is_healed_on_the_rows_of_its_task(tmp_path):
    tiny_checkpoint(tmp_path / "full", "bert", "classification", 4)
    source, plan = locate(tmp_path / "full"), LayerPlan(4, (1, 2))
    save_made(
        drop_layers(load_model(source), plan),
        tmp_path / "cut",
        source=source,
        provenance=provenance(source, {ONLY_STACK: plan}),
    )
    lines = [f"{'ba' if i % 2 else 'be'} {line},{i % 2}" for i, line in enumerate(words(240, line=3).splitlines())]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    options = TaskOptions(str(tmp_path / "rows.csv"), ("text",), "label")
    recipe = HealSpec(
        num_epochs=8, batch_size=16, learning_rate=5e-3, precision="float32", steps=parse_recipe("finetune")
    )
    done = heal(tmp_path, tmp_path / "out", data=None, task="custom", options=options, recipe=recipe)
    assert done.cosine is None and done.primary == "accuracy" and list(done.scores) == ["full", "cut", "healed"]
    assert done.scores["healed"]["accuracy"].value > 0.9 > done.scores["cut"]["accuracy"].value
    healed = AutoModelForSequenceClassification.from_pretrained(done.path)
    assert healed.config.num_hidden_layers == 2 and original_kept(read_history(done.path), "layers", 2) == (0, 3)
    # States are matched by index in the full model, which the history of the cut one tells.
    recipe = dataclasses.replace(recipe, num_epochs=1, steps=parse_recipe("distill(alpha=1, beta=1)"))
    taught = heal(tmp_path, tmp_path / "taught", data=None, task="custom", options=options, recipe=recipe)
    assert taught.training.steps > 0 and taught.scores["healed"] != done.scores["healed"]


def test_a_cut_classifier_learns_the_answers_of_its_full_model_to_any_text(here, tmp_path):
    tiny_checkpoint(tmp_path / "full", "bert", "classification", 4)
    source, plan = locate(tmp_path / "full"), LayerPlan(4, (1, 2))
    model = drop_layers(load_model(source), plan)
    save_made(model, tmp_path / "cut", source=source, provenance=provenance(source, {ONLY_STACK: plan}))
    steps = parse_recipe("distill(alpha=1, beta=1, tokens=all)")
    more = {"cut": tmp_path / "cut", "full": tmp_path / "full", "recipe": dataclasses.replace(QUICK, steps=steps)}
    done = heal(here, tmp_path / "out", **more)
    text = tiny_tokenizer()((here / "lines.txt").read_text().splitlines(), padding=True, return_tensors="pt")
    with torch.no_grad():
        full, cut, healed = (
            AutoModelForSequenceClassification.from_pretrained(folder)(**text).logits.log_softmax(-1)
            for folder in (tmp_path / "full", tmp_path / "cut", done.path)
        )
    far, near = (
        torch.nn.functional.kl_div(one, full, reduction="batchmean", log_target=True).item() for one in (cut, healed)
    )
    assert near < far / 2 and done.cosine is not None and done.cosine[1] > done.cosine[0]


def test_the_layers_of_a_cut_model_are_counted_in_its_teacher(here, tmp_path):
    cut_model(here / "full", tmp_path / "once", (1,))
    source, plan = locate(tmp_path / "once"), LayerPlan(3, (0,))
    model = drop_layers(load_model(source), plan)
    save_made(
        model, tmp_path / "twice", source=source, provenance=provenance(source, {ONLY_STACK: plan}), root=source.path
    )
    first = find_pair(tmp_path / "twice", here / "full").cut()
    assert (first.plan.depth, first.present, first.pending) == (4, (2, 3), ())
    last = find_pair(tmp_path / "twice", tmp_path / "once").cut()
    assert (last.plan.depth, last.present) == (3, (1, 2))
    (tmp_path / "twice" / "depthprune.json").unlink()
    assert find_pair(tmp_path / "twice", here / "full").cut().plan == LayerPlan(2, ())


@pytest.fixture(scope="module")
def strangers(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("strangers")
    full_model(folder / "cls", pooling="cls_token").joinpath("1_Pooling", "config.json").write_text(
        json.dumps({"pooling_mode_cls_token": True})
    )
    config = json.loads((tiny_checkpoint(folder / "wide", num_layers=4) / "config.json").read_text())
    (folder / "wide" / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    tokens = tiny_checkpoint(folder / "other-words", num_layers=4) / "tokenizer.json"
    tokens.write_text(tokens.read_text().replace('"ba"', '"zz"'))
    split = tiny_checkpoint(folder / "other-tokens", num_layers=4) / "tokenizer.json"
    split.write_text(split.read_text().replace('"Lowercase"', '"NFC"'))
    return folder


@pytest.mark.parametrize(
    "more, match",
    [
        ({"full": "cut"}, "are the same model, so there is nothing to learn"),
        ({"cut": "full", "full": "cut"}, "has 4 layers and its teacher .* 2; the teacher is the full model: exchange"),
        ({"full": "cls"}, "pools by mean and its teacher by cls"),
        ({"full": "wide"}, r"has the hidden size 16 \(hidden_size\) and its teacher '.*wide' 32"),
        ({"full": "other-words"}, r"have different vocabularies \(60 and 60 tokens\)"),
        ({"full": "other-tokens", "data": "upper.txt"}, "read '[A-Z ]+' as different tokens"),
        ({"data": None}, "say what to train on: --data FILE with texts, or --task"),
        ({"recipe": HealSpec(steps=parse_recipe("embedding+finetune"))}, "'finetune' needs labels, and a text"),
        ({"recipe": HealSpec(steps=parse_recipe("embedding(states=1e39)"))}, "the loss is inf at step 1 of 9"),
        ({"target": "cut"}, "exists and is not an empty folder"),
        ({"target": "cut/inside"}, "is inside the model's own folder"),
        ({"data": "missing.txt"}, "missing.txt"),
    ],
)  # fmt: skip
def test_what_cannot_be_healed_is_told_and_leaves_nothing(here, strangers, tmp_path, more, match):
    (here / "upper.txt").write_text(words(40 * 6, line=6).upper())
    target = here / more.get("target", str(tmp_path / "out"))
    before = sorted(str(file) for file in here.rglob("*"))
    full = more.get("full", "full")
    given = {**more, "full": str(strangers / full if (strangers / full).exists() else here / full)}
    given.pop("target", None)
    with pytest.raises(UserError, match=match):
        heal(here, target, **given)
    assert sorted(str(file) for file in here.rglob("*")) == before and not list(tmp_path.iterdir())


def test_a_task_without_pairs_scores_no_embeddings(here, tmp_path):
    options = TaskOptions(str(here / "pairs.csv"), ("a",), "amount")
    with pytest.raises(UserError, match="'custom' has none; give such a task, or leave it out"):
        heal(here, tmp_path / "out", task="custom", options=options)


def test_the_sample_of_a_text_can_be_said(here, tmp_path):
    sample = CalibrationOptions(str(here / "lines.txt"), samples=30)
    how = {"recipe": QUICK, "held_out": 7, "device": "cpu"}
    done = depthprune.heal(str(here / "cut"), str(here / "full"), tmp_path / "out", data=sample, **how)
    assert done.texts == (23, 7)
