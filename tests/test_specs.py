"""The digest names a run: the same run has the same name for ever, another run another."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from depthprune.specs import DropSpec, EvalSpec, HealSpec, RunSpec, Step, run_spec_of

SPEC = RunSpec(
    model="hub:bert-base-cased@cd5ef92a9fb2f889e972770a36d4ed042daf221e",
    evaluation=EvalSpec(task="sst2", data="sha256:00ff"),
    drop=DropSpec((8, 9, 10, 11)),
    heal=HealSpec(similar_lengths=True),  # the default when the first results were stored
)
# Every field with another value than in SPEC.
OTHER_VALUES = {
    "model": "hub:bert-base-cased@main",
    "seed": 43,
    "drop.dropped": (9, 10, 11),
    "evaluation.task": "mnli",
    "evaluation.data": "sha256:00fe",
    "evaluation.max_length": 64,
    "evaluation.outputs": (1, 0),
    "evaluation.metric": "f1",
    "heal.num_epochs": 2.5,
    "heal.batch_size": 16,
    "heal.learning_rate": 3e-5,
    "heal.weight_decay": 0.01,
    "heal.precision": "float32",
    "heal.similar_lengths": False,
    "heal.epochs_before": 1.0,
    "heal.freeze_dropped": True,
    "heal.drop_every": 1.0,
    "heal.drop_every_steps": 10,
    "heal.freeze_layers": (0, 1),
    "heal.freeze_embeddings": True,
    "heal.steps": (Step("finetune", (("num_epochs", 2.0),)),),
    "heal.teacher": "sha256:ff00",
    "heal.warmup": 0.1,
    "heal.validation_fraction": 0.1,
    "heal.patience": 2,
    "heal.accumulation": 4,
    "heal.fine_tuned": True,
    "heal.head": "mean",
    "heal.unlabelled": ("sha256:22",),
    "heal.unlabelled_rows": 12000,
    "drop.order": (2, 1),
}


def leaves(spec, prefix: str = "") -> set[str]:
    """Return the dotted names of the fields of `spec` that hold values."""
    names = set()
    for item in dataclasses.fields(spec):
        value = getattr(spec, item.name)
        inner = leaves(value, f"{prefix}{item.name}.") if dataclasses.is_dataclass(value) else {prefix + item.name}
        names |= inner
    return names


def with_value(spec, name: str, value):
    """Return `spec` with another value in the field of that dotted name."""
    first, _, rest = name.partition(".")
    return dataclasses.replace(spec, **{first: with_value(getattr(spec, first), rest, value) if rest else value})


def test_the_digest_of_a_run_is_what_it_was_when_the_first_results_were_stored():
    # A change here makes every stored result unreachable: give the new field a default and `later` instead.
    assert SPEC.digest() == "d4bf48ecdb9e"


def test_all_stored_results_load_and_keep_their_names():
    files = sorted((Path(__file__).parents[1] / "docs" / "results" / "minilm").glob("*/record.json"))
    assert len(files) >= 40
    for file in files:
        spec = run_spec_of(json.loads(file.read_text(encoding="utf-8"))["spec"])
        assert spec.digest() == file.parent.name
        assert run_spec_of(spec.to_dict()) == spec


def test_a_spec_with_steps_is_read_as_it_was_written():
    steps = (Step("freeze", (("embeddings", True), ("layers", (0, 2)))), Step("finetune", (("num_epochs", 2.0),)))
    spec = dataclasses.replace(SPEC, heal=HealSpec(steps=steps))
    again = run_spec_of(json.loads(json.dumps(spec.to_dict())))
    assert again == spec and again.digest() == spec.digest()
    whole = dataclasses.replace(SPEC, heal=HealSpec(steps=(steps[0], Step("finetune", (("num_epochs", 2),)))))
    assert whole.digest() == spec.digest(), "2 and 2.0 epochs are one run"


def test_every_field_is_part_of_the_name():
    assert set(OTHER_VALUES) == leaves(SPEC), "a field was added: give it another value in OTHER_VALUES"
    digests = [with_value(SPEC, name, value).digest() for name, value in OTHER_VALUES.items()]
    assert len({SPEC.digest(), *digests}) == len(OTHER_VALUES) + 1


def test_three_epochs_and_three_point_nought_are_one_run():
    whole, point = HealSpec(num_epochs=3), HealSpec(num_epochs=3.0)
    assert dataclasses.replace(SPEC, heal=whole).digest() == dataclasses.replace(SPEC, heal=point).digest()


@dataclass(frozen=True)
class LaterHealSpec(HealSpec):
    """HealSpec, some releases from now."""

    decay: float = field(default=0.0, metadata={"later": True})
    freeze: tuple[int, ...] = field(default_factory=tuple, metadata={"later": True})


def test_a_later_field_stays_out_of_the_name_while_it_has_its_default():
    assert dataclasses.replace(SPEC, heal=LaterHealSpec(similar_lengths=True)).digest() == SPEC.digest()


@pytest.mark.parametrize("values", [{"decay": 0.1}, {"freeze": (0,)}])
def test_a_later_field_with_a_value_of_its_own_makes_another_run(values):
    assert dataclasses.replace(SPEC, heal=LaterHealSpec(similar_lengths=True, **values)).digest() != SPEC.digest()


def test_a_spec_is_written_whole_as_json():
    written = SPEC.to_dict()
    assert json.loads(json.dumps(written)) == written
    assert written["drop"] == {"dropped": [8, 9, 10, 11], "order": []}
    assert written["heal"]["num_epochs"] == 3
    assert {name.partition(".")[0] for name in leaves(SPEC)} == set(written)
