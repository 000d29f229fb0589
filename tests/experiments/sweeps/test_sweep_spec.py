"""Sweeps as YAML: what is read, and what is refused with its line."""

import pytest

from depthprune.errors import UserError
from depthprune.experiments.sweeps.grid import StrategyEntry, read_sweep
from depthprune.specs import HealSpec

WHOLE = """\
models: [one, two]
tasks: mrpc
strategies:
  - top
  - {name: contribution, threshold: 0.95}
  - {name: angular, protect: "0,-1"}
counts: [1, 3-4, 1..L-1]
seeds: [1, 2]
heal:
  - {name: short, num_epochs: 1, learning_rate: 2e-5}
  - {name: long, num_epochs: 6}
max_length: 64
"""


def read(text, tmp_path):
    (tmp_path / "s.yaml").write_text(text)
    return read_sweep(tmp_path / "s.yaml")


def test_a_sweep_is_read(tmp_path):
    spec = read(WHOLE, tmp_path)
    assert spec.models == ("one", "two") and spec.tasks == ("mrpc",) and spec.seeds == (1, 2)
    assert spec.strategies == (
        StrategyEntry("top"),
        StrategyEntry("contribution", 0.95),
        StrategyEntry("angular", None, "0,-1"),
    )
    assert spec.counts_for(6) == (1, 2, 3, 4, 5)
    assert spec.heal == {"short": HealSpec(1.0, learning_rate=2e-5), "long": HealSpec(6.0)}
    assert [entry.label for entry in spec.strategies] == [
        "top",
        "contribution (threshold 0.95)",
        "angular (protect 0,-1)",
    ]


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("seeds:", "seds:", r"'s.yaml', line 8: there is no entry 'seds'; did you mean 'seeds'"),
        ("- top", "- topp", r"line 3: strategies: no strategy is named 'topp'; did you mean 'top'"),
        ("tasks: mrpc", "tasks: mrcp", r"line 2: tasks: no task is named 'mrcp'; did you mean 'mrpc'"),
        ("counts: [1, ", "counts: [0, ", r"line 7: counts: 0 is not a number of layers"),
        ("counts: [1, ", "counts: [x, ", r"line 7: counts: 'x' is not a number of layers"),
        ("seeds: [1", "seeds: [-1", r"line 8: seeds: -1 is not a seed"),
        (
            "num_epochs: 6",
            "epochs: 6",
            r"line 9: heal: no entry of a recipe is named 'epochs'; did you mean 'num_epochs'",
        ),
        ("num_epochs: 6", "num_epochs: -1", r"num_epochs -1 is out of range: it is 0 or more"),
        ("num_epochs: 6", "num_epochs: many", r"num_epochs is a number, not 'many'"),
        ("name: long", "name: short", r"two recipes are named 'short'"),
        ("threshold: 0.95", "thresold: 0.95", r"a strategy has no 'thresold'; did you mean 'threshold'"),
        ("threshold: 0.95", "threshold: 3", r"not a cosine"),
        ("name: angular", "name: top", r"goes by position"),
        ("contribution, threshold", "angular, threshold", r"line 3: strategies: 'angular' takes no threshold"),
        ("max_length: 64", "max_length: 1", r"line 12: max_length 1 is out of range: it is 4 or more"),
        ("models: [one, two]", "models: []", r"line 1: a sweep needs 'models'"),
        ("models: [one, two]", "models: [one, 2]", r"line 1: models: 2 is not a name"),
        ("models: [one, two]", "models: [one", r"is not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(old, new, message, tmp_path):
    assert old in WHOLE
    with pytest.raises(UserError, match=message):
        read(WHOLE.replace(old, new), tmp_path)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_sweep(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="has no entries"):
        read("- a\n", tmp_path)
