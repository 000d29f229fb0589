"""Runs whose layers a search chooses on the task's own training rows."""

import pytest

from depthprune.errors import PlanError
from depthprune.experiments.choosing.choose import Choice, choose_plan
from depthprune.experiments.choosing.search import SearchOptions, search_layers
from depthprune.experiments.choosing.task_search import task_search
from depthprune.experiments.sweeps.choices import stored_scorer
from depthprune.experiments.sweeps.expansion import expand
from depthprune.experiments.sweeps.grid import parse_sweep
from depthprune.sources import locate
from depthprune.strategies.search_result import SearchResult
from depthprune.tasks import TaskOptions, load_task
from depthprune.tasks.data.calibration import CalibrationOptions
from tiny_models import tiny_checkpoint, words

DEPTH = 5


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    lines = words(200, line=5).splitlines()
    file.write_text("text,label\n" + "".join(f"{line},{'no' if i % 2 else 'yes'}\n" for i, line in enumerate(lines)))
    return file


@pytest.fixture(scope="module")
def data(rows):
    return load_task("custom", TaskOptions(str(rows), ("text",), "label"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "model", "bert", "base", DEPTH)


def search(model, data, counts, store, **more):
    how = {"protect": None, "max_length": 16, "device": "cpu"} | more
    return task_search(locate(str(model)), "greedy", data, counts, store=store, **how)


def test_a_search_chooses_what_it_would_choose_on_the_training_rows_and_labels_do_not_matter(model, data, tmp_path):
    choice = Choice("greedy", count=2)
    choice.check()
    where = {"max_length": 16, "store": tmp_path, "device": "cpu", "on_progress": lambda *_: None}
    plan, order = choose_plan(choice, DEPTH, locate(str(model)), data, **where)

    sample = CalibrationOptions("custom", split="train", samples=len(data.splits["train"]), length=16)
    wanted = search_layers(str(model), "greedy", sample, SearchOptions((1, 2), "embedding"), task_data=data)
    assert plan == wanted.plan(2) and order == (*wanted.plans[1][0], *set(plan.dropped) - set(wanted.plans[1][0]))


@pytest.mark.parametrize("head, objective", [("base", "embedding"), ("classification", "kl"), ("mlm", "kl")])
def test_what_is_minimised_is_the_distance_from_the_full_models_output(head, objective, data, tmp_path):
    source = tiny_checkpoint(tmp_path / "model", "bert", head, 3)
    found = search(source, data, (1,), tmp_path / "store")
    assert found.objective["name"] == objective and found.full == pytest.approx(0, abs=1e-6)


def test_smaller_counts_come_with_it_and_a_larger_one_goes_on_from_the_trace(model, data, tmp_path):
    found = search(model, data, (2,), tmp_path)
    assert sorted(found.plans) == [1, 2]
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*")}
    assert len(before) == 2
    assert search(model, data, (1,), tmp_path) == found, "from the store"
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*")}

    more = search(model, data, (3,), tmp_path)
    assert sorted(more.plans) == [1, 2, 3] and more.plans[2] == found.plans[2]
    assert more.trials == found.trials + DEPTH - 2, "only the plans of the third layer are new"


def test_protected_layers_stay_and_are_another_search(model, data, tmp_path):
    free = search(model, data, (2,), tmp_path)
    kept = search(model, data, (2,), tmp_path, protect=str(free.plans[1][0][0]))
    assert not {free.plans[1][0][0]} & set(kept.plans[2][0])


def test_a_sweep_takes_a_search_as_a_strategy_and_a_dry_run_makes_none(model, rows, tmp_path):
    grid = parse_sweep(
        {"models": str(model), "tasks": "custom", "dataset": str(rows), "text_columns": "text", "label_column": "label",
         "strategies": ["greedy"], "counts": [1, 2, DEPTH], "max_length": 16}
    )  # fmt: skip
    dry = expand(grid, stored_scorer(tmp_path, "cpu", take=False))
    assert dry.unscored == 3 and not list(tmp_path.iterdir())

    real = expand(grid, stored_scorer(tmp_path, "cpu", take=True))

    assert [(row.strategy, row.count) for row in real.rows] == [("full", 0), ("greedy", 1), ("greedy", 2)]
    (note,) = real.skipped
    assert "cannot drop 5 of 5 layers; --count is 1 to 4" in note
    again = expand(grid, stored_scorer(tmp_path, "cpu", take=False))
    assert again.rows == real.rows, "what was found stays in the store"


def test_a_count_that_no_search_serves_is_refused_before_anything_is_loaded(model, data, tmp_path):
    with pytest.raises(PlanError, match="cannot drop 5 of 5 layers; --count is 1 to 4"):
        search(model, data, (5,), tmp_path)
    with pytest.raises(PlanError, match="is a search; it needs --count"):
        Choice("greedy", threshold=0.9).check()
    with pytest.raises(PlanError, match="exclude each other"):
        Choice("greedy", count=1, layers="2").check()
    assert not list(tmp_path.iterdir())


def test_layers_of_a_plan_that_is_no_nesting_of_smaller_ones_still_have_an_order():
    found = SearchResult(
        {}, "layers", 6, "exhaustive", {}, {1: ((2,), 0.1), 2: ((0, 4), 0.2), 3: ((0, 1, 2), 0.3)}, 0.0, {}
    )
    assert found.order(3) == (2, 0, 1) and found.order(2) == (4, 0)
