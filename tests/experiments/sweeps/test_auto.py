"""The smallest model within a bound, over records that are there already."""

import pytest

from depthprune.cli.auto import answer_lines
from depthprune.errors import UserError
from depthprune.evaluation.measurement import Measurement
from depthprune.experiments.resampling import lost_interval
from depthprune.experiments.store.predictions import write_predictions
from depthprune.experiments.store.store import Store
from depthprune.experiments.sweeps import auto
from depthprune.experiments.sweeps.auto import find, sure_runs
from depthprune.experiments.sweeps.bounds import Bounds, make_bounds, parse_loss
from depthprune.experiments.sweeps.budget import next_plans
from depthprune.experiments.sweeps.expansion import Expansion, Job
from depthprune.plan import LayerPlan
from depthprune.specs import DropSpec, EvalSpec, RunSpec
from depthprune.tasks import TaskOptions
from made_records import make_record

# Not monotone: three layers lose more than four.
SCORES = {
    (): 0.80,
    (5,): 0.797,
    (4, 5): 0.795,
    (3, 4, 5): 0.70,
    (2, 3, 4, 5): 0.791,
    (1, 2, 3, 4, 5): 0.60,
    (1, 2): 0.78,
}


@pytest.fixture
def store(tmp_path):
    for dropped, score in SCORES.items():
        make_record(tmp_path, dropped, score)
    return Store(tmp_path)


def expansion():
    jobs = {}
    for dropped in SCORES:
        spec = RunSpec("sha256:" + "a" * 64, EvalSpec("mrpc", "sha256:rows"), DropSpec(dropped))
        jobs[spec.digest()] = Job(spec, "model", 6, TaskOptions())
    return Expansion(jobs)


@pytest.mark.parametrize(
    "bounds, dropped",
    [
        (Bounds(0.01), (2, 3, 4, 5)),
        (Bounds(0.004), (5,)),
        (Bounds(0.005), (4, 5)),
        (Bounds(0.01, relative=True), (4, 5)),
        (Bounds(0.25), (1, 2, 3, 4, 5)),
        (Bounds(max_parameters=20_000_000), (4, 5)),
        (Bounds(max_parameters=18_000_000), (2, 3, 4, 5)),
        (Bounds(speedup=2.9), (2, 3, 4, 5)),
        (Bounds(max_latency_ms=1.0), (1, 2, 3, 4, 5)),
        (Bounds(0.0), ()),
    ],
)
def test_the_largest_count_within_the_bound_is_found_and_not_the_first_failure(bounds, dropped, store):
    answer = find(expansion(), store, bounds)
    assert answer.record is not None and answer.digest is not None
    assert tuple(answer.record["spec"]["drop"]["dropped"]) == dropped and answer.complete
    assert store.model_folder(answer.digest).is_dir()
    assert len(list(store.root.glob("*/model"))) == len(SCORES), "checkpoints that were there before stay"
    assert len(list(store.root.glob("*/record.json"))) == len(SCORES)


def test_only_the_answers_checkpoint_is_kept_of_those_made_now_and_a_record_without_one_counts(store, monkeypatch):
    digests = {job.plan.dropped: digest for digest, job in expansion().jobs.items()}
    before, now, recorded = digests[(5,)], digests[(1, 2)], digests[(2, 3, 4, 5)]
    for digest in digests.values():
        if digest != before:
            store.model_folder(digest).rmdir()
    (store.folder(now) / "record.json").rename(store.root / "later.json")
    asked = []

    def run_jobs(jobs, store, *, redo, save, **_):
        for digest in jobs.jobs:
            if not (store.folder(digest) / "record.json").exists():
                (store.root / "later.json").rename(store.folder(digest) / "record.json")
                store.model_folder(digest).mkdir()
            elif redo:
                store.model_folder(digest).mkdir()
                asked.append(digest)
            yield digest, "done", ""

    monkeypatch.setattr(auto, "run_jobs", run_jobs)
    assert find(expansion(), store, Bounds(0.01)).digest == recorded
    assert asked == [recorded], "only the answer is run again for its checkpoint"
    assert sorted(folder.parent.name for folder in store.root.glob("*/model")) == sorted([before, recorded])


def test_no_model_within_the_bounds_is_an_answer_too(store):
    answer = find(expansion(), store, Bounds(max_parameters=1))
    assert answer.digest is None and len(answer.tried) == len(SCORES)


def test_without_a_budget_small_cuts_go_first_and_what_is_stored_costs_nothing(store, tmp_path):
    sure, todo = sure_runs(expansion(), Store(tmp_path / "empty"))
    plans = expansion().jobs
    assert [plans[digest].plan.count for digest in sure] == [0]
    assert [plans[digest].plan.count for digest in todo] == [1, 2, 2, 3, 4, 5]
    assert not sure_runs(expansion(), store)[1] and find(expansion(), store, Bounds(0.01), budget=1).complete


DEPTH = 12


def tries(does, budget: int, *, at_a_time: int = 1, bounds: Bounds | None = None) -> list[int]:
    """Return the counts that a budget is spent on, of a model whose score is 0.8, or 0.5 where `does(count)` is false.

    There are two plans of each count; the second does as the first.
    """
    bounds = bounds or Bounds(0.01)
    plans = {f"{count} {kind}": LayerPlan(DEPTH, tuple(range(count))) for count in range(1, DEPTH) for kind in "ab"}
    records, order = [{"spec": {"drop": {"dropped": []}}}], []
    while budget:
        size = min(budget, at_a_time)
        chosen = next_plans(plans, records, Measurement(0.8), bounds, size, last=size == budget)
        assert len(chosen) == size
        for name in chosen:
            count = plans.pop(name).count
            order.append(count)
            outcome = {"primary": "accuracy", "metrics": {"accuracy": {"value": 0.8 if does(count) else 0.5}},
                       "profile": {"parameters": 100 - count, "latency_ms": 1.0, "full_latency_ms": 1.0}}  # fmt: skip
            records.append({"spec": {"drop": {"dropped": list(range(count))}}, "outcome": outcome})
        budget -= size
    return order


def test_a_budget_is_spent_between_what_does_and_what_does_not():
    assert tries(lambda count: count <= 4, 4) == [6, 3, 5, 4]
    assert tries(lambda count: count <= 4, 6) == [6, 3, 5, 4, 5, 6], (
        "then other plans, from the nearest larger count on"
    )
    assert tries(lambda count: count <= 4, 4, at_a_time=2) == [6, 3, 5, 4]
    assert tries(lambda count: True, 3) == [6, 9, 11]


def test_a_budget_does_not_end_before_the_smallest_cut_was_tried_where_nothing_does():
    assert tries(lambda count: False, 4) == [6, 3, 2, 1]
    assert tries(lambda count: False, 3) == [6, 3, 1]
    assert tries(lambda count: False, 1) == [1]
    assert tries(lambda count: False, 2, at_a_time=2)[-1] == 1
    assert tries(lambda count: count == 6, 2) == [6, 9], "something does"


def test_where_only_the_size_is_bounded_the_smallest_cut_that_is_small_enough_is_looked_for():
    assert tries(lambda count: True, 4, bounds=Bounds(max_parameters=92)) == [6, 9, 8, 7]


def test_what_is_lost_has_an_interval_from_the_rows_that_both_runs_answered(tmp_path):
    expected = [0, 1] * 200
    right_but = lambda wrong: [1 - label if i < wrong else label for i, label in enumerate(expected)]  # noqa: E731
    for name, wrong in (("full", 20), ("pruned", 40), ("other", 40)):
        (tmp_path / name).mkdir()
        rows = expected if name != "other" else [*expected[1:], 0]
        write_predictions(tmp_path / name, {"": {"expected": rows, "predicted": right_but(wrong)}})

    found = lost_interval(tmp_path / "full", tmp_path / "pruned", "accuracy")
    assert found is not None
    low, high = found

    # 20 of 400 rows differ: 0.05 ± 1.96 √(0.05 · 0.95 / 400)
    assert low == pytest.approx(0.05 - 0.0214, abs=0.004) and high == pytest.approx(0.05 + 0.0214, abs=0.004)
    assert lost_interval(tmp_path / "full", tmp_path / "other", "accuracy") is None, "other rows"
    assert lost_interval(tmp_path / "full", tmp_path / "none", "accuracy") is None
    assert lost_interval(tmp_path / "full", tmp_path / "full", "accuracy") is None, "the full model itself"


def test_the_answer_says_layers_score_size_speed_and_path(store):
    answer = find(expansion(), store, Bounds(0.01))
    lines = "\n".join(answer_lines(answer, expansion(), answer.checkpoint))
    assert "drop layers 2-5 of 6" in lines and "accuracy 79.10 on 400 rows, 0.90 below the full model's 80.00" in lines
    assert "15.6M parameters of 22.8M" in lines and "2.00 ms an example, 3.00 times the full model's" in lines
    assert f"checkpoint: {store.model_folder(answer.digest)}" in lines


def test_a_full_model_that_learned_nothing_is_no_measure_and_the_answer_says_so(tmp_path):
    speedup = {"value": 1.2, "low": 0.9, "high": 1.4, "batches": 6}
    profile = {"parameters": 1, "full_parameters": 2, "weight_bytes": 4, "latency_ms": 5.0, "speedup": speedup}
    for dropped in SCORES:
        make_record(tmp_path, dropped, 0.47, baseline={"accuracy": 0.53}, profile=profile)
    answer = find(expansion(), Store(tmp_path), Bounds(0.01))

    *lines, last = answer_lines(answer, expansion(), answer.checkpoint)

    assert "  speed: 5.00 ms an example, 1.20 times the full model's (95 % interval 0.90 to 1.40)" in lines
    assert last.startswith(
        "beware: the full model scores 47.00, and always saying the largest class 53.00: nothing was"
    )


def test_where_no_cut_is_within_the_bounds_the_answer_says_what_was_tried_and_what_came_nearest(store):
    answer = find(expansion(), store, Bounds(0.0))
    first, nearest, *_ = answer_lines(answer, expansion(), answer.checkpoint)
    assert "the full model; of 6 plans tried (1-5 layers dropped) none is within the bounds" in first
    assert "without layers 5 accuracy is 79.70, 0.30 below" in nearest
    with pytest.raises(UserError, match="no model is within the bounds; tried were 6 plans, of 1-5 layers dropped"):
        list(answer_lines(find(expansion(), store, Bounds(max_parameters=1)), expansion(), None))


@pytest.mark.parametrize(
    "bounds, message",
    [
        ((None, None, None, None), "say what the model may lose or cost"),
        ((None, "many", None, None), "'many' is not|many is not a number of parameters; write 80M"),
        ((None, None, -1.0, None), "--max-latency-ms -1.0 is out of range"),
        ((None, None, None, "fast"), "--speedup fast is out of range"),
    ],
)
def test_bounds_that_are_none_are_refused(bounds, message):
    with pytest.raises(UserError, match=message):
        make_bounds(*bounds)


@pytest.mark.parametrize("text", ["x", "-1", "101", "1 point"])
def test_a_bound_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="is not a loss; write"):
        parse_loss(text)
