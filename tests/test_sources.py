"""A model is found in a folder or in the Hub's cache, and is named by what it holds."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub.constants import HF_HUB_CACHE
from safetensors.torch import load_file, save_file

from depthprune.checkpoints.save import save_checkpoint
from depthprune.errors import LoadError
from depthprune.loading import load_classifier, load_model
from depthprune.sources import locate
from tiny_models import tiny_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path):
    """A model in the Hub's cache, laid out as a download leaves it."""
    home = Path(HF_HUB_CACHE) / "models--somebody--tiny"
    tiny_checkpoint(home / "snapshots" / COMMIT)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)
    yield "somebody/tiny"
    shutil.rmtree(home)


def test_a_model_in_the_cache_is_found_without_a_network_and_named_by_its_commit(cached):
    source = locate(cached)

    assert source.identity == f"hub:somebody/tiny@{COMMIT}"
    assert load_model(source).config.num_hidden_layers == 4


def test_the_identity_follows_the_content_and_not_the_place(tmp_path):
    one = tiny_checkpoint(tmp_path / "one")
    same = shutil.copytree(one, tmp_path / "same")
    other = shutil.copytree(one, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"layer_norm_eps": 1e-6}
    (other / "config.json").write_text(json.dumps(config))

    identities = [locate(str(at)).identity for at in (one, same, other)]

    assert identities[0] == identities[1] != identities[2]
    assert all(identity.startswith("sha256:") for identity in identities)


def test_what_lies_beside_the_weights_is_not_taken_for_weights(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / "adapter_model.safetensors").write_bytes(b"adapter")

    assert [file.name for file in locate(str(folder)).weights] == ["model.safetensors"]


def test_only_the_head_is_fresh_when_a_task_needs_another(tmp_path):
    source = locate(str(tiny_checkpoint(tmp_path / "model", head="classification")))

    kept, fresh = load_classifier(source, 2)
    assert fresh == [] and kept.config.num_labels == 2

    wider, fresh = load_classifier(source, 5)
    assert fresh == ["classifier.bias", "classifier.weight"] and wider.config.num_labels == 5


def test_a_body_that_the_weights_do_not_have_is_refused(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 6}
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(LoadError, match=r"lack 'bert.encoder.layer.4.*config.json does not describe them"):
        load_classifier(locate(str(folder)), 2)


def nested(levels: int) -> dict:
    value: dict = {}
    for _ in range(levels):
        value = {"deeper": value}
    return value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"model_type": "bert", "note": "\\ud800"}', r"'\\ud800' contains half a surrogate pair"),
        ('{"model_type": "bert", "\\udfff": 1}', r"'\\udfff' contains half a surrogate pair"),
        (json.dumps({"model_type": "bert", **nested(900)}), "nested more than 50 levels deep"),
        ('{"model_type": "bert", "x": ' + "[" * 900 + "]" * 900 + "}", "nested more than 50 levels deep"),
        ('{"model_type": ["bert"]}', r"model_type is \['bert'\], which is not text"),
        ('{"model_type": "llava", "text_config": {"model_type": {}}}', "model_type is {}, which is not text"),
    ],
)
def test_a_configuration_that_nothing_can_work_with_is_refused_in_one_line(tmp_path, text, words):
    folder = tiny_checkpoint(tmp_path / "model")
    (folder / "config.json").write_text(text)

    with pytest.raises(LoadError, match=f"config.json of .* cannot be used: .*{words}"):
        locate(str(folder))


@pytest.mark.parametrize(
    "named",
    [["pipeline"], ["AutoModel", "logging"], ["BertPreTrainedModel"], ["BertTokenizer"], [["BertModel"]], "Bert"],
)
def test_names_that_are_no_models_are_not_taken_for_the_class(tmp_path, named):
    folder = tiny_checkpoint(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"architectures": named}
    (folder / "config.json").write_text(json.dumps(config))

    assert type(load_model(locate(str(folder)))).__name__ == "BertModel"


def test_a_checkpoint_without_a_pooler_is_loaded_and_saved_again_without_one(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    save_checkpoint(load_model(locate(str(folder))), tmp_path / "again")

    assert load_file(tmp_path / "again" / "model.safetensors").keys() == kept.keys()
