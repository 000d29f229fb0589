"""Objectives are parts like strategies: named, refused by name, and added from outside."""

import pytest

from depthprune import SearchOptions
from depthprune.errors import UserError
from depthprune.experiments.choosing.objectives import objective_names
from depthprune.experiments.choosing.search import search_layers
from depthprune.scores.objectives.base import Objective, registry
from depthprune.scores.predictions import logits_of
from depthprune.tasks.data.calibration import CalibrationOptions
from tiny_models import tiny_checkpoint


@pytest.fixture
def own_objective(monkeypatch):
    """An objective that a package of somebody's own registered: the distance of the first token's states."""

    def distance(output, batch, head, full):
        ours, theirs = (logits_of(states)[:, 0] for states in (output, full))
        return float((ours - theirs).square().sum()), len(ours)

    registry.names()
    monkeypatch.setattr(registry, "_parts", dict(registry._parts))
    registry.add("first-token", Objective("first-token", distance, (None,), against_full=True, unit="squared"))
    return "first-token"


def test_an_objective_of_ones_own_is_listed_and_searched_by(own_objective, tmp_path):
    model = tiny_checkpoint(tmp_path / "model", num_layers=4)
    (tmp_path / "text.txt").write_text("ba be bi\nbe bo\n" * 4)
    data = CalibrationOptions(str(tmp_path / "text.txt"), samples=4, length=8)

    found = search_layers(str(model), "greedy", data, SearchOptions((1, 2), own_objective))

    assert own_objective in objective_names()
    assert found.objective == {"name": own_objective, "unit": "squared"}
    assert found.full == pytest.approx(0, abs=1e-6) and 0 < found.plans[1][1] <= found.plans[2][1] * 10


@pytest.mark.parametrize("name", [None, 3, ["kl"]])
def test_what_is_no_name_is_refused_as_such(name):
    with pytest.raises(UserError, match=r"no objective is named .*; give its name as text"):
        registry.get(name)
