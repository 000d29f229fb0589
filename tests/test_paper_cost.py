"""The estimate of what the paper's grid costs: its arithmetic, and that the docs say what it says."""

import importlib.util
import math
from pathlib import Path

import pytest

from depthprune.experiments.sweeps.grid import read_sweep

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cost():
    spec = importlib.util.spec_from_file_location("paper_cost", ROOT / "benchmarks" / "paper_cost.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_costs_its_share_of_the_layers_and_what_a_strategy_does_not_support_is_no_run(cost):
    grids = [read_sweep(ROOT / f"examples/paper/{depth}-layers.yaml") for depth in (12, 6)]
    six_strategies = 6 * (10 + 8 + 6) / 12
    assert cost.layers(grids[0], 12) == (22, pytest.approx(1 + six_strategies + (10 + 8 + 6) / 12))
    # Symmetric keeps as many below as above, so that of six layers it can drop two alone.
    assert cost.layers(grids[1], 6) == (17, pytest.approx(1 + (5 * 5 + 6 * 4 + 5 * 3) / 6))


def test_the_full_run_is_three_epochs_of_the_official_rows_and_their_scoring(cost):
    assert cost.full_run("mrpc") == pytest.approx(94.3 * (3 * math.ceil(3668 / 32) + 13 / 3))


def test_hours_are_the_work_over_the_rate_and_twice_the_rate_is_half_the_time(cost, tmp_path):
    (tmp_path / "one.yaml").write_text("models: {m: m}\ntasks: [rte]\nstrategies: [top]\ncounts: [6]\n")
    sweep = read_sweep(tmp_path / "one.yaml")
    rate = cost.full_run("rte") * 1.5 / 3600  # the full model, and half of it: in an hour
    assert cost.table([(sweep, 12)], rate).splitlines()[-1] == "| all | 2 | 1.00 | 1.0 |"
    assert cost.table([(sweep, 12)], 2 * rate).splitlines()[-1] == "| all | 2 | 0.50 | 0.5 |"


def test_the_docs_say_what_the_estimate_says(cost):
    sweeps = [(read_sweep(ROOT / f"examples/paper/{depth}-layers.yaml"), depth) for depth in (12, 6)]
    page = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    assert cost.table(sweeps, cost.measured_rate()) in page, "run `python benchmarks/paper_cost.py` and paste it"
