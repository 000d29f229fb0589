"""What travels with a checkpoint, and folders of sentence-transformers, cut whole."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, WeightedLayerPooling
from transformers import AutoModelForSequenceClassification

from depthprune.checkpoints.companions import beside, check_beside, copy_files, find_transformer
from depthprune.checkpoints.drop import drop_checkpoint
from depthprune.checkpoints.history import provenance
from depthprune.checkpoints.save import save_made
from depthprune.errors import CannotDropError, LoadError
from depthprune.plan import LayerPlan
from depthprune.sources import locate
from depthprune.surgery import bypassed
from tiny_models import tiny_checkpoint

SENTENCES = ["ba be bi", "fo fu da de", "ga"]
PLAN = LayerPlan(4, (1, 2))
TRAVELS = (
    "LICENSE",
    "NOTICE.txt",
    "additional_chat_templates/tool.jinja",
    "chat_template.jinja",
    "preprocessor_config.json",
    "sub/config.json",
    "sub/README.md",
    "tekken.json",
    "tokenizer.json",
    "video_preprocessor_config.json",
    "vocab.whatever",
)
STAYS = (
    *(
        "config.json",
        "generation_config.json",
        "README.md",
        "depthprune.json",
        "params.json",
        "adapter_config.json",
        "modeling_own.py",
    ),
    *("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"),
    *("rust_model.ot", "model.Q4_K_M.GGUF", "consolidated.00.pth", "model.onnx", "model.onnx_data_1", "last.ckpt"),
    *(
        "optimizer.pt",
        "scheduler.pt",
        "rng_state_0.pth",
        "trainer_state.json",
        "training_args.bin",
        "eval_results.json",
    ),
    *("events.out.tfevents.1.host", "runs/x/events.out.tfevents.2", "train.log", "logo.png", "assets/sound.wav"),
    *(".gitattributes", ".git/config", ".cache/huggingface/x", "__pycache__/modeling_own.cpython-311.pyc"),
    *("onnx/config.json", "onnx/model.onnx", "export/config.json", "export/model.gguf", "export/inner/tokenizer.json"),
    *("checkpoint-5/tokenizer.json", "original/tokenizer.model"),
)


def fill(folder: Path, names) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_everything_travels_but_weights_trainings_pictures_and_what_is_written_anew(tmp_path):
    folder = fill(tmp_path / "model", (*TRAVELS, *STAYS))

    assert beside(folder) == tuple(sorted(TRAVELS))
    assert set(beside(folder, python=True)) == {*TRAVELS, "modeling_own.py"}


def test_files_are_copied_to_the_same_places(tmp_path):
    folder = fill(tmp_path / "model", TRAVELS)

    copy_files(folder, tmp_path / "out", beside(folder))

    copied = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert copied == set(TRAVELS) and (tmp_path / "out" / "LICENSE").read_text() == "LICENSE"


def test_links_within_the_folder_and_to_the_blobs_of_the_hub_are_followed(tmp_path):
    cache = tmp_path / "models--org--name"
    folder = fill(cache / "snapshots" / "0123", ["vocab.txt"])
    fill(cache / "blobs", ["aaa"])
    (folder / "LICENSE").symlink_to("../../blobs/aaa")
    (folder / "again.txt").symlink_to("vocab.txt")

    copy_files(folder, tmp_path / "out", beside(folder))

    assert (tmp_path / "out" / "LICENSE").read_text() == "aaa" and not (tmp_path / "out" / "LICENSE").is_symlink()
    assert (tmp_path / "out" / "again.txt").read_text() == "vocab.txt"


@pytest.mark.parametrize("target", ["../secret", "/etc/hostname", "nowhere", "../elsewhere", "."])
def test_a_link_out_of_the_folder_or_in_a_circle_is_refused(target, tmp_path):
    fill(tmp_path, ["secret", "elsewhere/inside"])
    folder = fill(tmp_path / "model", ["vocab.txt"])
    (folder / "link").symlink_to(target)

    with pytest.raises(LoadError, match=r"is a (symbolic )?link|or a link to"):
        beside(folder)


def test_a_link_that_would_not_travel_is_no_matter(tmp_path):
    folder = fill(tmp_path / "model", ["vocab.txt"])
    (folder / "optimizer.pt").symlink_to("/nowhere/optimizer.pt")
    (folder / "runs").symlink_to(tmp_path)

    assert beside(folder) == ("vocab.txt",)


QUANTISERS = {
    "a list": ("hf_quant_config.json", {"quantization": {"exclude_modules": ["lm_head", "model.layers.0*"]}}),
    "keys": ("quantization_config.json", {"extra_config": {"model.layers.3.mlp": {"bits": 16}}}),
    "patterns": ("quantize_config.json", {"dynamic": {r"+:.*\.18\..*gate.*": {"bits": 8}}}),
    "ranges": ("quantize_config.json", {"dynamic": {r"-:model\.layers\.[0-3]\.": {}}}),
    "scales": ("kv_cache_scales.json", {"kv_cache": {"scaling_factor": {"0": {"0": 0.1}}}}),
}


@pytest.mark.parametrize("kind", QUANTISERS)
def test_a_file_that_names_layers_and_would_not_be_rewritten_is_refused(kind, tmp_path):
    name, content = QUANTISERS[kind]
    (tmp_path / name).write_text(json.dumps(content))

    with pytest.raises(CannotDropError, match=f"'{name}' beside the weights refers to .* by number"):
        check_beside(tmp_path)


def test_a_quantiser_that_names_no_layer_is_no_matter(tmp_path):
    content = {"bits": 4, "producer": {"version": "0.23.1"}, "base": "meta/Llama-3.1-8B", "modules": ["mlp.fc1"]}
    (tmp_path / "quantize_config.json").write_text(json.dumps(content))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 8, "config_args": null}')

    check_beside(tmp_path)


def test_a_depth_that_sentence_transformers_would_set_over_is_refused(tmp_path):
    (tmp_path / "sentence_bert_config.json").write_text('{"config_kwargs": {"num_hidden_layers": 4}}')

    with pytest.raises(CannotDropError, match="sets num_hidden_layers = 4 over"):
        check_beside(tmp_path)


def test_a_file_of_a_quantiser_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "quantize_config.json").write_text("{")

    with pytest.raises(LoadError, match="cannot be read"):
        check_beside(tmp_path)


def files_in(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def sentence_folder(tmp_path: Path, place: str) -> Path:
    """Write a model of sentence-transformers with a dense module, the transformer in the folder itself or inside."""
    transformer = Transformer(str(tiny_checkpoint(tmp_path / "bert", num_layers=4)))
    torch.manual_seed(0)
    modules = [transformer, Pooling(16, pooling_mode="mean"), Dense(16, 6), Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu", prompts={"query": "ba "}, default_prompt_name="query")
    folder = tmp_path / "sentences"
    model.save(str(folder))
    if place:
        entries = json.loads((folder / "modules.json").read_text())
        assert entries[0]["path"] == ""
        entries[0]["path"] = place
        others = {entry["path"] for entry in entries}
        (folder / place).mkdir()
        for file in [file for file in folder.iterdir() if file.name not in (*others, place)]:
            if file.name not in ("modules.json", "config_sentence_transformers.json", "README.md"):
                file.rename(folder / place / file.name)
        (folder / "modules.json").write_text(json.dumps(entries))
    return fill(folder, ["LICENSE"])


@pytest.mark.parametrize("place", ["", "0_Transformer"])
def test_a_cut_folder_of_sentence_transformers_encodes_as_the_bypassed_original(place, tmp_path):
    folder = sentence_folder(tmp_path, place)
    whole = SentenceTransformer(str(folder), device="cpu")
    full = whole.encode(SENTENCES, convert_to_tensor=True)
    with bypassed(whole[0].model, PLAN.dropped):
        expected = whole.encode(SENTENCES, convert_to_tensor=True)
    assert not torch.allclose(full, expected)

    transformer = find_transformer(folder)
    assert transformer == folder / place
    drop_checkpoint(folder, tmp_path / "out", PLAN)

    cut = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert torch.equal(cut.encode(SENTENCES, convert_to_tensor=True), expected)
    assert cut[0].model.config.num_hidden_layers == 2 and cut.prompts["query"] == "ba "
    assert {"LICENSE", "modules.json", "2_Dense/model.safetensors"} <= set(files_in(tmp_path / "out"))
    assert set(files_in(tmp_path / "out")) == {*files_in(folder), f"{place}/depthprune.json".lstrip("/")}


def test_a_trained_model_keeps_the_modules_of_its_folder_and_has_a_card(tmp_path):
    folder = sentence_folder(tmp_path, "")
    (folder / "README.md").write_text("---\nlicense: mit\npipeline_tag: sentence-similarity\n---\n# The first one\n")
    source = locate(str(folder))
    trained = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    with torch.no_grad():
        trained.bert.embeddings.word_embeddings.weight += 1
    history = provenance(source, {"layers": LayerPlan(4, ())})

    save_made(trained, tmp_path / "out", source=source, provenance=history, training="two epochs on rows", name="mine")

    again = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert [type(module).__name__ for module in again] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert again.prompts["query"] == "ba " and (tmp_path / "out" / "LICENSE").is_file()
    assert torch.equal(again[0].model.embeddings.word_embeddings.weight, trained.bert.embeddings.word_embeddings.weight)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config.num_labels == 3
    card = (tmp_path / "out" / "README.md").read_text()
    for said in ("# `mine`", "This is `sentences`, trained by", "Training: two epochs on rows", "license: mit"):
        assert said in card
    assert "BertForSequenceClassification.from_pretrained" in card and "written before the training" in card
    assert "sentence-similarity" not in card and "layer-dropping" not in card


def test_a_cross_encoder_is_cut_like_any_model_or_like_a_folder_of_modules(tmp_path):
    pairs = [("ba be", "bi"), ("fo", "fu da")]
    checkpoint = tiny_checkpoint(tmp_path / "bert", head="classification", num_layers=4)
    assert find_transformer(checkpoint) is None
    CrossEncoder(str(checkpoint), device="cpu").save_pretrained(str(tmp_path / "cross"))
    whole = CrossEncoder(str(tmp_path / "cross"), device="cpu")
    with bypassed(whole[0].model, PLAN.dropped):
        expected = whole.predict(pairs, convert_to_tensor=True)

    transformer = find_transformer(tmp_path / "cross")
    assert transformer == tmp_path / "cross"
    drop_checkpoint(tmp_path / "cross", tmp_path / "out", PLAN)

    cut = CrossEncoder(str(tmp_path / "out"), device="cpu")
    assert torch.equal(cut.predict(pairs, convert_to_tensor=True), expected)


def test_a_router_and_pooling_over_all_layers_are_refused(tmp_path):
    transformer = Transformer(str(tiny_checkpoint(tmp_path / "bert", num_layers=4)))
    router = Router.for_query_document([transformer, Pooling(16)], [transformer, Pooling(16)])
    SentenceTransformer(modules=[router], device="cpu").save(str(tmp_path / "router"))
    pooling = WeightedLayerPooling(16, num_hidden_layers=4, layer_start=1)
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(tmp_path / "weighted"))

    with pytest.raises(CannotDropError, match=r"several models \(Router\)"):
        find_transformer(tmp_path / "router")
    with pytest.raises(CannotDropError, match="weights the states of every layer"):
        find_transformer(tmp_path / "weighted")


def test_folders_without_one_transformer_are_refused(tmp_path):
    folder = sentence_folder(tmp_path, "0_Transformer")
    shutil.copytree(folder / "0_Transformer", folder / "1_Other")
    modules = json.loads((folder / "modules.json").read_text())
    for entries, message in (
        ([*modules, {"path": "1_Other", "type": "x.Transformer"}], "has 2 transformers to cut"),
        (modules[1:], "has 0 transformers to cut"),
    ):
        (folder / "modules.json").write_text(json.dumps(entries))
        with pytest.raises(CannotDropError, match=message):
            find_transformer(folder)
    save_file({"x": torch.zeros(1)}, folder / "2_Dense" / "adapter_model.safetensors")
    (folder / "2_Dense" / "config.json").rename(folder / "2_Dense" / "adapter_config.json")
    with pytest.raises(CannotDropError, match="holds an adapter without its model"):
        find_transformer(folder)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "3",
        '[{"path": "x"}]',
        '[{"path": 3, "type": "x"}]',
        '[{"path": "../x", "type": "x"}]',
        '[{"path": "/etc", "type": "x"}]',
        '[{"path": "a\\\\..\\\\b", "type": "x"}]',
        '[{"path": "C:\\\\x", "type": "x"}]',
    ],
)
def test_a_broken_list_of_modules_is_refused(content, tmp_path):
    (tmp_path / "modules.json").write_text(content)

    with pytest.raises(LoadError, match=r"modules\.json"):
        find_transformer(tmp_path)
