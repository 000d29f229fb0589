"""Sizes against what is written to disk; latency of a shorter model is lower."""

import torch

from depthprune.profiling.footprint import num_parameters, weight_bytes
from depthprune.profiling.latency import latency_ms
from tiny_models import tiny_model


def test_weight_bytes_are_what_the_file_takes(tmp_path):
    for head in ("base", "mlm"):
        model = tiny_model("bert", head)
        model.save_pretrained(tmp_path / head)
        written = (tmp_path / head / "model.safetensors").stat().st_size

        assert 0 < written - weight_bytes(model) < 20_000, "the header alone may come on top"


def test_tied_weights_count_once():
    model = tiny_model("bert", "mlm")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight

    untied = sum(tensor.numel() for tensor in model.state_dict().values())

    assert num_parameters(model) < untied


def test_latency_is_positive_and_leaves_the_mode():
    model = tiny_model("bert").train()
    batch = {"input_ids": torch.ones(2, 4, dtype=torch.long)}

    assert latency_ms(model, [batch]) > 0
    assert model.training
