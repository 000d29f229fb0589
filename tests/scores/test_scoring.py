"""Scores of whole checkpoints: what the metrics say, what the file says, and one layer at a time."""

import pytest
import torch

from depthprune.errors import UserError
from depthprune.experiments.choosing.engine import Engine
from depthprune.experiments.choosing.score import score_layers
from depthprune.plan import LayerPlan
from depthprune.scores import registry
from depthprune.surgery import drop_layers
from depthprune.tasks.data.calibration import CalibrationOptions
from tiny_models import DEPTH, tiny_checkpoint, tiny_decoder, words


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text(words(4000))
    return str(file)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return str(tiny_decoder(tmp_path_factory.mktemp("decoder"), DEPTH))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("encoder"), "bert", "mlm", DEPTH))


def sample(text, **more):
    return CalibrationOptions(text, **{"samples": 12, "length": 24, **more})


@pytest.mark.parametrize("metric", registry.names())
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_every_metric_scores_every_layer_and_two_runs_agree(metric, kind, text, request):
    model = request.getfixturevalue(kind)
    one, other = (score_layers(model, metric, sample(text)) for _ in range(2))
    assert one == other
    layers = one.of().layers
    assert len(layers) == DEPTH and len(set(layers)) == DEPTH
    assert one.calibration["samples"] == 12 and one.calibration["fingerprint"].startswith("sha256:")
    assert one.token == ("last" if kind == "decoder" else "first")
    assert one.model["weights"] == "pre-trained"
    assert one.calibration["kind"] == ("blocks" if kind == "decoder" else "examples")


@pytest.mark.parametrize("metric", registry.names())
def test_the_batch_size_hardly_changes_a_score(metric, text, decoder, encoder):
    for model in (decoder, encoder):
        one = score_layers(model, metric, sample(text), engine=Engine(batch_size=12)).of().layers
        other = score_layers(model, metric, sample(text), engine=Engine(batch_size=5)).of().layers
        assert other == pytest.approx(one, rel=2e-5, abs=1e-5)


def test_the_loss_score_is_the_rise_of_the_loss_of_the_model_without_the_layer(text, decoder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from depthprune.scores.batches import Batches
    from depthprune.tasks.data.calibration import load_calibration

    scores = score_layers(decoder, "loss", sample(text)).of().layers
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    calibration = load_calibration(sample(text), tokenizer, blocks=True)

    def loss(dropped):
        model = AutoModelForCausalLM.from_pretrained(decoder).eval()
        drop_layers(model, LayerPlan(DEPTH, dropped))
        with torch.no_grad():
            ids = [b.inputs["input_ids"] for b in Batches(calibration, model, tokenizer, 12)]
            return model(input_ids=ids[0], labels=ids[0]).loss.item()

    full = loss(())
    assert scores == pytest.approx([loss((i,)) - full for i in range(DEPTH)], abs=1e-5)


def test_taylor_is_gradient_times_weight(text, decoder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from depthprune.scores.batches import Batches
    from depthprune.tasks.data.calibration import load_calibration

    scores = score_layers(decoder, "taylor", sample(text)).of().layers
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    model = AutoModelForCausalLM.from_pretrained(decoder).eval()
    batch = Batches(load_calibration(sample(text), tokenizer, blocks=True), model, tokenizer, 12)[0]
    model(input_ids=batch.inputs["input_ids"], labels=batch.inputs["input_ids"]).loss.backward()
    wanted = [
        sum((p.grad * p).abs().sum().item() for p in layer.parameters() if p.grad is not None)
        for layer in model.model.layers
    ]
    assert scores == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("metric", ["angular", "loss", "magnitude"])
@pytest.mark.parametrize("kind", ["llama", "mixtral", "bert"])
def test_one_layer_at_a_time_gives_the_same_scores_bit_for_bit(metric, kind, text, tmp_path):
    if kind == "bert":
        model = str(tiny_checkpoint(tmp_path / "m", "bert", "mlm", DEPTH))
    else:
        model = str(tiny_decoder(tmp_path / "m", DEPTH, kind))
    whole = score_layers(model, metric, sample(text), engine=Engine(batch_size=5))
    tight = Engine(batch_size=5, layerwise=True, cache_memory=10_000, cache_dir=tmp_path / "states")
    assert score_layers(model, metric, sample(text), engine=tight).by_method == whole.by_method
    assert metric == "magnitude" or list((tmp_path / "states").iterdir()) == []


def test_two_score_files_of_the_same_sample_have_one_fingerprint(text, decoder, encoder):
    one, other = (score_layers(decoder, m, sample(text)).calibration["fingerprint"] for m in ("angular", "magnitude"))
    assert one == other
    for options in (sample(text, seed=1), sample(text, samples=11), sample(text, length=20)):
        assert score_layers(decoder, "magnitude", options).calibration["fingerprint"] != one


@pytest.mark.parametrize(
    "metric, more, message",
    [
        ("angualr", {}, "no score is named 'angualr'; did you mean 'angular'"),
        ("angular", {"token": "middle"}, "there is no token 'middle'"),
        ("angular", {"objective": "kl"}, "--objective is for --method loss"),
        ("loss", {"objective": "klh"}, "no objective is named 'klh'"),
        ("loss", {"objective": "metric"}, "needs a task with labels"),
        ("loss", {"objective": "finetuned"}, "run depthprune search --objective finetuned"),
        ("angular", {"stack": "decoder"}, "the model has no stack 'decoder'"),
        ("taylor", {"engine": Engine(layerwise=True)}, "--layerwise cannot take gradients"),
        ("loss", {"engine": Engine(dtype="float8")}, "there is no dtype 'float8'"),
    ],
)
def test_what_cannot_be_scored_is_one_line(metric, more, message, text, decoder):
    with pytest.raises(UserError, match=message):
        score_layers(decoder, metric, sample(text), **more)


def test_the_perplexity_of_an_encoder_without_a_language_head_is_refused(text, tmp_path):
    model = str(tiny_checkpoint(tmp_path / "m", "bert", "base"))
    with pytest.raises(UserError, match="has no head, and 'perplexity' needs a model with a causal language head"):
        score_layers(model, "loss", sample(text), objective="perplexity")
    assert score_layers(model, "loss", sample(text)).model["objective"] == "embedding"


def test_a_model_with_broken_weights_is_refused_with_the_layer(text, tmp_path):
    from tiny_models import tiny_model, tiny_tokenizer

    model = tiny_model("bert", "mlm")
    with torch.no_grad():
        model.bert.encoder.layer[2].output.dense.weight.fill_(float("nan"))
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="layer 2 returns hidden states that are not finite"):
        score_layers(str(tmp_path), "contribution", sample(text))
    with pytest.raises(UserError, match="the loss of the full model is not finite"):
        score_layers(str(tmp_path), "loss", sample(text))
