"""One vector of a sequence: how a folder says that it pools, and that padding takes no part in it."""

import json
from pathlib import Path

import pytest
import torch

from depthprune.errors import LoadError
from depthprune.experiments.choosing.calibrate import prepare
from depthprune.experiments.choosing.engine import Engine
from depthprune.scores.objectives.base import registry
from depthprune.sources import locate
from depthprune.tasks.data.calibration import CalibrationOptions
from depthprune.tasks.pooling import WAYS, pooled_BD, read_pooling
from tiny_models import tiny_checkpoint, words


def folder(path: Path, said: dict) -> Path:
    (path / "1_Pooling").mkdir(parents=True)
    (path / "1_Pooling" / "config.json").write_text(json.dumps(said))
    module = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    (path / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "x.Transformer"}, module])
    )
    return path


@pytest.mark.parametrize(
    "said, ways",
    [
        ({"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, ("mean",)),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, ("max", "mean")),
        ({"pooling_mode_lasttoken": True}, ("lasttoken",)),
        ({"pooling_mode": "cls"}, ("cls",)),
    ],
)
def test_the_folder_says_how_it_pools(tmp_path, said, ways):
    assert read_pooling(folder(tmp_path, said)) == ways


def test_a_folder_that_says_nothing_takes_the_mean_and_an_unknown_way_is_refused(tmp_path):
    assert read_pooling(tmp_path) == ("mean",)
    with pytest.raises(LoadError, match="pools by 'attention', which is not implemented here"):
        read_pooling(folder(tmp_path, {"pooling_mode": "attention"}))


@pytest.mark.parametrize("left", [False, True])
def test_padding_takes_no_part_in_any_way(left):
    states = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    padding, mask = torch.full((1, 2, 4), 9.0), torch.tensor([[1, 1, 1]])
    none = torch.zeros_like(mask[:, :2])
    longer = torch.cat([padding, states] if left else [states, padding], 1)
    for way in WAYS:
        alone = pooled_BD(states, mask, (way,))
        longer_mask = torch.cat([none, mask] if left else [mask, none], 1)
        padded = pooled_BD(longer, longer_mask, (way,))
        assert torch.allclose(alone, padded), way
    first, last = (pooled_BD(states, mask, (way,)) for way in ("cls", "lasttoken"))
    assert torch.equal(first, states[:, 0]) and torch.equal(last, states[:, -1])


def test_the_objective_compares_what_the_folder_hands_out(tmp_path):
    path = folder(tiny_checkpoint(tmp_path / "model", num_layers=3), {"pooling_mode_cls_token": True})
    (tmp_path / "words.txt").write_text(words(200))
    options = CalibrationOptions(str(tmp_path / "words.txt"), samples=4)
    prepared = prepare(locate(str(path)), options, Engine(device="cpu"), None)
    batch = prepared.batches(predict=True)[0]
    one, other = (torch.randn(4, batch.inputs["input_ids"].shape[1], 16) for _ in range(2))
    found, count = registry.get("embedding").function(one, batch, None, other)
    assert count == 4
    assert found == pytest.approx(float((1 - torch.cosine_similarity(one[:, 0], other[:, 0], dim=-1)).sum()), abs=1e-5)
