"""What is read off the records of a store."""

from depthprune.experiments.store.records import group_of
from depthprune.specs import EvalSpec, HealSpec, RunSpec


def spec(epochs: float, drop_every: float = 0.0) -> dict:
    heal = HealSpec(num_epochs=epochs, drop_every=drop_every)
    return RunSpec("model", EvalSpec("mrpc", "sha256:0"), heal=heal).to_dict()


def test_a_run_finds_its_full_model_whether_epochs_were_written_3_or_3_0():
    assert group_of({"spec": spec(3.0, drop_every=2)}) == group_of({"spec": spec(3)})
    assert group_of({"spec": spec(4.0, drop_every=2)}) != group_of({"spec": spec(3)})
