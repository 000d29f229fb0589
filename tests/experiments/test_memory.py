"""What cannot fit into memory is refused before it starts, with what is needed and what is there."""

import pytest

from depthprune.errors import UserError
from depthprune.experiments.memory import _within_cgroup, available_bytes, check_memory, training_bytes
from depthprune.healing.recipe import read_recipe, resolve
from depthprune.loading import load_model
from depthprune.plan import LayerPlan
from depthprune.sources import locate
from tiny_models import tiny_checkpoint


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return locate(str(tiny_checkpoint(tmp_path_factory.mktemp("model"), "bert", "classification", 4)))


def needed(source, steps: str, dropped=(1, 2)) -> int:
    found = training_bytes(source, LayerPlan(4, dropped), resolve(read_recipe({"steps": steps})))
    assert found is not None
    return found


def test_what_is_needed_is_the_models_weights_and_what_adamw_keeps_of_those_that_learn(source):
    model = load_model(source)
    whole = sum(parameter.numel() for parameter in model.parameters())
    layer = sum(parameter.numel() for parameter in model.bert.encoder.layer[0].parameters())
    student = whole - 2 * layer
    assert layer > 1000
    assert needed(source, "finetune") == 16 * student
    assert needed(source, "finetune", ()) == 16 * whole
    assert needed(source, "distill") == 16 * student + 4 * whole
    assert needed(source, "linear-patch+distill(lora_rank=4)") == needed(source, "inherit") == 4 * (student + whole)
    assert needed(source, "freeze(layers=0)+finetune") == needed(source, "distill(num_epochs=0)") - 4 * whole
    assert needed(source, "finetune(num_epochs=0)") == needed(source, "lora") == 4 * student
    assert needed(source, "replace+finetune") == needed(source, "distill") > needed(source, "replace")


def test_less_than_that_is_refused_and_as_much_is_not(source):
    bytes_needed = needed(source, "distill")
    check_memory(bytes_needed, "cpu", available=bytes_needed)
    check_memory(None, "cpu", available=0)
    message = r"AdamW's states take at least 0\.\d MB of memory, and 0\.\d MB are free on the cpu; take a recipe that"
    with pytest.raises(UserError, match=message):
        check_memory(bytes_needed, "cpu", available=bytes_needed - 1)
    with pytest.raises(
        UserError, match=r"^3 runs at a time need at least 6\.0 GB .* fewer runs at a time \(--workers\)"
    ):
        check_memory(6 * 10**9, "cpu", runs=3, available=5 * 10**9)
    assert available_bytes("cpu") > 50 * bytes_needed


def test_weights_of_unknown_size_are_not_refused(source, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    unknown = type(source)("unknown", tmp_path, None, source.config, allow_pickle=True)
    assert training_bytes(unknown, LayerPlan(4, ()), resolve(read_recipe({"steps": "finetune"}))) is None


def test_the_limit_of_a_container_counts(tmp_path):
    assert _within_cgroup(tmp_path) > 1 << 60
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 60\nactive_file 40\n")
    assert _within_cgroup(tmp_path) > 1 << 60
    (tmp_path / "memory.max").write_text("1000\n")
    assert _within_cgroup(tmp_path) == 1000 - 700 + 100
