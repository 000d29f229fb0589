"""A head on pooled states: padding is nothing to it, surgery cuts its body, and sentence-transformers loads it."""

import copy
import json
import logging
import sys

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer, MPNetConfig, MPNetModel

from depthprune.checkpoints.drop import drop_checkpoint
from depthprune.checkpoints.save import save_made
from depthprune.errors import CannotDropError, LoadError
from depthprune.experiments.environment import checkpoint_provenance
from depthprune.healing.base import Cut, TrainingData
from depthprune.healing.recipe import heal, parse_recipe, resolve
from depthprune.plan import LayerPlan
from depthprune.pooled.folder import read_head
from depthprune.pooled.loading import load_pooled, load_with_head
from depthprune.pooled.model import PooledClassifier
from depthprune.pooled.proof import prove_head
from depthprune.sources import locate
from depthprune.specs import HealSpec
from depthprune.surgery import drop_layers, find_stacks
from depthprune.surgery.bypass import bypassed
from depthprune.tasks import Task, TaskData
from depthprune.tasks.data.encoding import encode
from depthprune.tasks.heads import own_head
from tiny_models import SIZES, WORDS, build, tiny_checkpoint, tiny_decoder, tiny_tokenizer

KINDS = ("bert", "roberta", "distilbert", "xlnet", "mpnet", "modernbert")
POOLINGS = ("mean", "cls", "max", "lasttoken")
TEXTS = ["ba be", "da fu ki ra so bu gu", "ko"]
PAIRS = [("ba be", "da"), ("fu ki ra", "so bu gu lu"), ("ko", "ba")]


def checkpoint_of(kind: str, folder):
    if kind != "mpnet":
        return tiny_checkpoint(folder, kind, num_layers=4)
    config = MPNetConfig(**{**SIZES, "num_hidden_layers": 4, "pad_token_id": 1, "max_position_embeddings": 44})
    build(MPNetModel, config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def model_of(folder, num_outputs: int = 3, head: str = "mean"):
    torch.manual_seed(0)
    model, fresh = load_with_head(locate(folder), num_outputs, head=head)
    assert fresh == ["classifier.bias", "classifier.weight"]
    model.set_head(torch.randn_like(model.classifier.weight), torch.randn_like(model.classifier.bias))
    return model.eval()


def saved(model, source, target):
    made_from = locate(source)
    history = checkpoint_provenance(made_from, LayerPlan(4, ()), task="t")
    return save_made(model, target, source=made_from, provenance=history, training="on nothing")


def logits(model, tokenizer, texts) -> torch.Tensor:
    columns = zip(*texts, strict=True) if isinstance(texts[0], tuple) else (texts,)
    with torch.no_grad():
        return model(**tokenizer(*map(list, columns), padding=True, return_tensors="pt")).logits


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_change_the_logits(kind, tmp_path):
    model = model_of(checkpoint_of(kind, tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    for texts in (TEXTS, PAIRS):
        batch = logits(model, tokenizer, texts)
        alone = torch.cat([logits(model, tokenizer, [text]) for text in texts])
        assert (batch[0] - batch[1]).abs().max() > 1e-2, "the texts are told apart"
        assert (batch - alone).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_head_loads_back_and_sentence_transformers_gives_its_logits(kind, tmp_path, monkeypatch):
    model = model_of(checkpoint_of(kind, tmp_path / "model"))
    folder = saved(model, tmp_path / "model", tmp_path / "out")
    again, fresh = load_with_head(locate(folder), 3, head="mean")
    said: list[str] = []
    monkeypatch.setattr(logging.getLogger("transformers.modeling_utils"), "warning", lambda text, *_: said.append(text))
    encoder = SentenceTransformer(str(folder), device="cpu")
    assert said == [], "nothing is missing, and nothing left over"
    if model.without_pooler:
        AutoModel.from_pretrained(folder)
        assert "pooler.dense.weight" in said[0], "which the plain class makes up"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert fresh == [] and own_head(locate(folder).config) == "mean"
    for texts in (TEXTS, PAIRS):
        expected = logits(model, tokenizer, texts)
        assert torch.equal(logits(again.eval(), tokenizer, texts), expected)
        assert torch.equal(logits(load_pooled(locate(folder)).eval(), tokenizer, texts), expected)
        assert (encoder.encode(texts, convert_to_tensor=True) - expected).abs().max() < 1e-5
    columns = [list(column) for column in zip(*PAIRS, strict=True)]
    ids = tokenizer(*columns, padding=True, return_tensors="pt")["input_ids"]
    assert torch.equal(encoder.preprocess(PAIRS)["input_ids"], ids), "a pair is read as a text pair"
    assert "SentenceTransformer" in (folder / "README.md").read_text()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", ["bert", "xlnet"])
def test_every_pooling_is_that_of_sentence_transformers(pooling, kind, tmp_path):
    model = model_of(tiny_checkpoint(tmp_path / "model", kind), head=pooling)
    folder = saved(model, tmp_path / "model", tmp_path / "out")
    expected = logits(model, AutoTokenizer.from_pretrained(folder), TEXTS)
    encoder = SentenceTransformer(str(folder), device="cpu")
    assert (encoder.encode(TEXTS, convert_to_tensor=True) - expected).abs().max() < 1e-5


def test_poolings_differ(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    models = [model_of(folder, head=pooling) for pooling in POOLINGS]
    found = [logits(model, AutoTokenizer.from_pretrained(folder), TEXTS) for model in models]
    assert all((one - other).abs().max() > 1e-2 for i, one in enumerate(found) for other in found[:i])


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_dropped_from_its_body_as_from_any_model(kind, tmp_path):
    model = model_of(checkpoint_of(kind, tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    (stack,) = find_stacks(model).values()
    whole = logits(model, tokenizer, TEXTS)
    with bypassed(model, [1, 3]):
        expected = logits(model, tokenizer, TEXTS)
    cut = drop_layers(copy.deepcopy(model), [1, 3])
    assert stack.depth == 4 and not torch.equal(whole, expected)
    assert torch.equal(logits(cut, tokenizer, TEXTS), expected)
    assert cut.base_model.config.num_hidden_layers == 2


def test_a_saved_folder_is_cut_as_bytes_with_its_head(tmp_path):
    folder = saved(model_of(tiny_checkpoint(tmp_path / "model")), tmp_path / "model", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = logits(drop_layers(load_pooled(locate(folder)).eval(), [2]), tokenizer, TEXTS)
    cut = drop_checkpoint(folder, tmp_path / "cut", [2]).path
    assert torch.equal(logits(load_pooled(locate(cut)).eval(), tokenizer, TEXTS), expected)
    assert (
        SentenceTransformer(str(cut), device="cpu").encode(TEXTS, convert_to_tensor=True) - expected
    ).abs().max() < 1e-5


def test_a_sentence_encoder_keeps_its_licence_and_loses_what_would_change_the_logits(tmp_path):
    source = tiny_checkpoint(tmp_path / "model")
    (source / "LICENSE").write_text("be kind")
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (source / "modules.json").write_text(json.dumps(modules))
    for name in ("1_Pooling", "2_Normalize"):
        (source / name).mkdir()
    (source / "1_Pooling" / "config.json").write_text(
        '{"word_embedding_dimension": 16, "pooling_mode_cls_token": true}'
    )
    (source / "sentence_bert_config.json").write_text('{"max_seq_length": 20, "do_lower_case": true}')
    (source / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "ba be "}, "default_prompt_name": "query"}'
    )
    model = model_of(source)
    folder = saved(model, source, tmp_path / "out")
    encoder = SentenceTransformer(str(folder), device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (encoder.encode(TEXTS, convert_to_tensor=True) - logits(model, tokenizer, TEXTS)).abs().max() < 1e-5
    assert encoder.max_seq_length == 20 and (folder / "LICENSE").read_text() == "be kind"
    assert not (folder / "2_Normalize").exists() and [type(module).__name__ for module in encoder][-1] == "Dense"
    plain = AutoModel.from_pretrained(folder)
    assert type(plain).__name__ == "BertModel"


def test_a_folder_with_other_weights_than_the_model_is_not_proved(tmp_path):
    model = model_of(tiny_checkpoint(tmp_path / "model"))
    folder = saved(model, tmp_path / "model", tmp_path / "out")
    assert "SentenceTransformer" in prove_head(model, folder)
    model.classifier.bias.data[0] += 0.1
    with pytest.raises(CannotDropError, match="the folder gives other logits by AutoModel and the linear layer"):
        prove_head(model, folder)


def test_without_sentence_transformers_the_plain_model_and_the_linear_layer_are_the_proof(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # as if it were not installed
    model = model_of(tiny_checkpoint(tmp_path / "model"))
    folder = saved(model, tmp_path / "model", tmp_path / "out")
    assert prove_head(model, folder) == "the linear layer beside them gives its logits"


def test_an_architectures_head_takes_the_place_of_a_pooled_one(tmp_path):
    folder = saved(model_of(tiny_checkpoint(tmp_path / "model")), tmp_path / "model", tmp_path / "out")
    model, fresh = load_with_head(locate(folder), 2, head="architecture")
    assert "classifier.weight" in fresh and model.config.pooled_head is None
    again = saved(model, folder, tmp_path / "other")
    assert own_head(locate(again).config) == "architecture" and not (again / "modules.json").exists()
    assert sorted(path.name for path in again.iterdir() if path.is_dir()) == []


class Full:
    """A teacher with the same head."""

    pooling, identity = ("mean",), "sha256:00"

    def __init__(self, model):
        self._model = model

    def model(self):
        return self._model.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "recipe",
    [
        "lora",
        "freeze(embeddings=true)+finetune",
        "freeze(all_but_last=1)+distill(tokens=pooled, beta=1, states=last)",
        "gradual(every_steps=1)",
        "linear-patch(examples=8)",
        "merge",
        "theseus",
        "inherit",
        "embedding",
        "hidden-kd",
        "distill(gamma=1)",
    ],
)
def test_healing_methods_train_it_as_any_classifier(recipe, tmp_path):
    from datasets import Dataset

    source = tiny_checkpoint(tmp_path / "model", num_layers=3)
    model, teacher, tokenizer = model_of(source, 2), model_of(source, 2), tiny_tokenizer()
    teacher.classifier.weight.data.neg_()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    texts = [" ".join(WORDS[i : i + 3 + i % 4]) for i in range(16)]
    rows = Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(16)]})
    task = Task("t", ("text",), "label", ("a", "b"), ("accuracy",))
    data = TrainingData(encode(TaskData(task, {"train": rows}), tokenizer, 16)["train"], tokenizer)
    spec = HealSpec(num_epochs=2, batch_size=8, learning_rate=1e-3, precision="float32", steps=parse_recipe(recipe))
    healed = heal(model, data, resolve(spec), cut=Cut(LayerPlan(3, (1,))), seed=0, teacher=Full(teacher))
    assert healed.model is model and model.config.num_hidden_layers == 2
    after = model.state_dict()
    assert after.keys() < before.keys() and any(not torch.equal(after[name], before[name]) for name in after)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_another_head_is_another_model(tmp_path):
    folder = saved(model_of(tiny_checkpoint(tmp_path / "model")), tmp_path / "model", tmp_path / "out")
    before = locate(folder)
    identity, stamps = before.identity, before.stamps
    file = folder / "2_Dense" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert locate(folder).identity != identity and locate(folder).stamps != stamps


@pytest.mark.parametrize(("kind", "reason"), [("t5", "'t5' has both"), ("clip", "'clip' has none")])
def test_a_model_without_states_of_text_has_no_such_head(kind, reason, tmp_path):
    from transformers import CLIPConfig, T5Config

    from depthprune.pooled.model import pooled_class

    with pytest.raises(LoadError, match=reason):
        pooled_class({"t5": T5Config, "clip": CLIPConfig}[kind]())


def test_a_decoder_has_one(tmp_path):
    model = model_of(tiny_decoder(tmp_path / "model"), head="lasttoken")
    assert isinstance(model, PooledClassifier) and find_stacks(model)["layers"].depth == 4


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("config.json", None, "names a pooled head, and .* has none that can be read"),
        ("config.json", b'{"activation_function": "torch.nn.modules.activation.Tanh"}', "says not that it is a linear"),
        ("model.safetensors", None, "has none that can be read"),
        ("model.safetensors", b"12345678", "has none that can be read"),
    ],
)
def test_a_broken_head_is_named(file, content, reason, tmp_path):
    folder = saved(model_of(tiny_checkpoint(tmp_path / "model")), tmp_path / "model", tmp_path / "out")
    read_head(folder)
    place = folder / "2_Dense" / file
    place.unlink() if content is None else place.write_bytes(content)
    with pytest.raises(LoadError, match=reason):
        load_pooled(locate(folder))
