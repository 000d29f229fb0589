"""Provenance: what made a checkpoint, which layers of the first model it has, and plans in that numbering."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from depthprune.checkpoints.history import (
    header_hash,
    original_kept,
    plan_from_original,
    present_layers,
    provenance,
    read_history,
)
from depthprune.errors import LoadError, PlanError
from depthprune.experiments.environment import checkpoint_provenance
from depthprune.plan import LayerPlan
from depthprune.sources import ModelSource, locate
from tiny_models import tiny_checkpoint

OLD_FORMAT = [{"source": "bert", "depth": 6, "dropped": [4, 5]}, {"source": "cut", "depth": 4, "dropped": [0]}]
TWO_STACKS = [
    {"source": "t5", "stacks": {"encoder": {"depth": 6, "dropped": [1]}, "decoder": {"depth": 4, "dropped": []}}},
    {"source": "cut", "stacks": {"encoder": {"depth": 5, "dropped": [0, 4]}}},
    {"source": "cut", "stacks": {"decoder": {"depth": 4, "dropped": [3]}}},
]


def folder_with(content: object, tmp_path: Path) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "depthprune.json").write_text(text, encoding="utf-8")
    return tmp_path


def written(source: ModelSource, record: dict) -> ModelSource:
    """Put a record beside the weights, as a cut does."""
    (source.path / "depthprune.json").write_text(json.dumps(record))
    return ModelSource(source.name, source.path, None, source.config)


def test_a_cut_is_told_in_the_numbers_of_the_first_model_and_of_the_given_one(tmp_path):
    source = locate(str(tiny_checkpoint(tmp_path / "bert", num_layers=6)))
    once = provenance(source, {"layers": LayerPlan(6, (1, 4))}, strategy="top")

    # The folder stands for the model that the first cut made.
    twice = provenance(written(source, once), {"layers": LayerPlan(4, (1,))}, scores={"layers": (0.5, 0.1, 0.4, 0.3)})

    assert once["cuts"][0]["stacks"]["layers"]["original_kept"] == [0, 2, 3, 5] and once["cuts"][0]["strategy"] == "top"
    assert twice["cuts"][0] == once["cuts"][0], "the history stays as it was"
    assert twice["cuts"][1]["stacks"] == {
        "layers": {
            "depth": 4,
            "dropped": [1],
            "original_depth": 6,
            "original_dropped": [2],
            "original_kept": [0, 3, 5],
        }
    }
    assert twice["cuts"][1]["source"] == "bert" and twice["cuts"][1]["scores"] == {"layers": [0.5, 0.1, 0.4, 0.3]}
    assert twice["packages"]["depthprune"]
    assert json.loads(json.dumps(twice)) == twice


def test_a_plan_that_drops_nothing_adds_no_cut(tmp_path):
    source = locate(str(tiny_checkpoint(tmp_path / "bert", num_layers=4)))

    assert provenance(source, {"layers": LayerPlan(4, ())}, more={"task": "cola"})["cuts"] == []
    assert checkpoint_provenance(source, LayerPlan(4, ()), task="cola")["task"] == "cola"


def test_weights_are_hashed_only_where_that_was_done_before(tmp_path):
    source = locate(str(tiny_checkpoint(tmp_path / "bert", num_layers=4)))
    cheap = provenance(source, {"layers": LayerPlan(4, (0,))})["cuts"][0]
    full = checkpoint_provenance(source, LayerPlan(4, (0,)))["cuts"][0]

    assert "identity" not in cheap and full["identity"] == source.identity
    assert cheap["header_hash"] == full["header_hash"] == header_hash(source)


def test_the_hash_of_headers_is_of_names_and_sizes_and_not_of_values(tmp_path):
    folder = tiny_checkpoint(tmp_path / "bert", num_layers=4)
    before, file = header_hash(locate(str(folder))), folder / "model.safetensors"
    tensors = load_file(file)

    save_file({name: tensor + 1 for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    assert header_hash(locate(str(folder))) == before

    save_file({f"x.{name}": tensor for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    renamed = header_hash(locate(str(folder)))
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    assert len({before, renamed, header_hash(locate(str(folder)))}) == 3


def test_a_model_that_was_never_cut_has_its_own_numbers(tmp_path):
    assert read_history(tmp_path) == () and original_kept((), "layers", 3) == (0, 1, 2)
    assert plan_from_original((), "layers", 3, dropped=[2]) == LayerPlan(3, (2,))


def test_the_first_format_is_read_whatever_the_stack_is_called(tmp_path):
    history = read_history(folder_with({"cuts": OLD_FORMAT}, tmp_path))

    assert original_kept(history, "layers", 3) == original_kept(history, "encoder", 3) == (1, 2, 3)
    assert present_layers(history) == {"layers": (6, (1, 2, 3))}
    assert present_layers([*history, {"stacks": {"encoder": {"depth": 3, "dropped": [2]}}}]) == {"encoder": (6, (1, 2))}


def test_every_stack_has_a_history_of_its_own(tmp_path):
    history = read_history(folder_with({"cuts": TWO_STACKS}, tmp_path))

    assert present_layers(history) == {"encoder": (6, (2, 3, 4)), "decoder": (4, (0, 1, 2))}
    assert plan_from_original(history, "encoder", 3, dropped=[3]) == LayerPlan(3, (1,))
    assert plan_from_original(history, "decoder", 3, kept=[0, 2]) == LayerPlan(3, (1,))
    assert original_kept(history, "vision", 5) == (0, 1, 2, 3, 4)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_plans_in_the_first_numbering_name_the_same_layers(data):
    depth = data.draw(st.integers(2, 30))
    layers, history = list(range(depth)), []
    for _ in range(data.draw(st.integers(0, 4))):
        gone = data.draw(st.sets(st.integers(0, len(layers) - 1), max_size=len(layers) - 1))
        history.append({"stacks": {"layers": {"depth": len(layers), "dropped": sorted(gone)}}})
        layers = [layer for i, layer in enumerate(layers) if i not in gone]
    assert original_kept(history, "layers", len(layers)) == tuple(layers)

    keep = data.draw(st.sets(st.sampled_from(layers), min_size=1))
    plan = plan_from_original(history, "layers", len(layers), kept=keep)

    assert [layers[i] for i in plan.kept] == sorted(keep)
    assert plan == plan_from_original(history, "layers", len(layers), dropped=set(layers) - keep)


@pytest.mark.parametrize("how", ["dropped", "kept"])
def test_a_layer_that_is_gone_is_named(how):
    with pytest.raises(
        PlanError, match=r"layers \[0, 4\] of the original were already dropped from 'layers', which has 1-3"
    ):
        plan_from_original(OLD_FORMAT, "layers", 3, **{how: (0, 1, 4)})


@pytest.mark.parametrize(
    ("how", "layers", "message"),
    [
        ("dropped", (7,), r"layers \[7\] do not exist: the stack has layers 0 to 5"),
        ("kept", (-1,), "negative"),
        ("kept", (1, 1), "given twice"),
        ("dropped", (1, 2, 3), "leaves no model"),
    ],
)
def test_a_plan_that_is_none_is_refused(how, layers, message):
    with pytest.raises(PlanError, match=message):
        plan_from_original(OLD_FORMAT, "layers", 3, **{how: layers})


def test_a_history_of_another_model_is_refused():
    with pytest.raises(LoadError, match="tells of 3 layers in 'layers' and the model has 5"):
        original_kept(OLD_FORMAT, "layers", 5)
    with pytest.raises(LoadError, match="contradicts itself: one cut leaves 4 layers of 'layers' and the next starts"):
        original_kept([OLD_FORMAT[0], OLD_FORMAT[0]], "layers", 4)


BROKEN = {
    "no JSON": "{",
    "too deep": "[" * 100_000,
    "no object": "[]",
    "no text": "\udcff",
    "no list of cuts": {"cuts": {"depth": 3}},
    "no depth": {"cuts": [{"dropped": [1]}]},
    "no number": {"cuts": [{"depth": 3, "dropped": ["1"]}]},
    "a truth": {"cuts": [{"depth": 3, "dropped": [True]}]},
    "no list of layers": {"cuts": [{"depth": 3, "dropped": "01"}]},
    "a layer too many": {"cuts": [{"depth": 3, "dropped": [3]}]},
    "an endless stack": {"cuts": [{"depth": 10**12, "dropped": [3]}]},
    "a cut that is a number": {"cuts": [3]},
    "stacks that are a list": {"cuts": [{"stacks": []}]},
    "a stack that is a number": {"cuts": [{"stacks": {"layers": 3}}]},
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_record_is_refused_in_one_line(kind, tmp_path):
    content = BROKEN[kind]
    file = tmp_path / "depthprune.json"
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(LoadError, match="was not written by depthprune") as caught:
        read_history(tmp_path)
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.sampled_from(["depth", "dropped", "stacks", "cuts"]), v),
        max_leaves=12,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_whatever_stands_in_a_record_it_is_read_or_refused(tmp_path, value):
    for content in (value, {"cuts": value}, {"cuts": [value]}, {"cuts": [{"depth": 3, "dropped": value}]}):
        try:
            history = read_history(folder_with(content, tmp_path))
        except LoadError:
            continue
        assert all(depth >= len(kept) for depth, kept in _layers(history))


def _layers(history):
    try:
        return present_layers(history).values()
    except LoadError:
        return []
