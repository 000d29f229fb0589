"""Verdicts by chance: with nothing but noise in the runs, a claim is decided in at most one of twenty reports.

The scores here are drawn: rows that are hard or easy for all models, seeds that move a model as a whole, and seeds that
turn single rows. None of the plans is better than another, save where a test says so.
"""

from dataclasses import replace

import numpy as np
import pytest

from depthprune.evaluation.measurement import Measurement
from depthprune.experiments.resampling import METRICS
from depthprune.experiments.store.predictions import write_predictions
from depthprune.reporting.claims import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, verdicts
from depthprune.reporting.claims.rows import row_variance
from depthprune.reporting.results import Results, read_results
from made_records import make_record

BY_POSITION = {"top": (4, 5), "bottom": (0, 1), "symmetric": (2, 3), "even-alternate": (3, 5), "odd-alternate": (2, 4)}
LAST = {"top": (5,), "odd-alternate": (4,)}
REPORTS = 200
AT_MOST = 0.05 + 2.6 * (0.05 * 0.95 / REPORTS) ** 0.5  # of so many reports, by the normal approximation at 0.5 %


def template(root, plans, tasks):
    """Return a run a plan and task, with the full models, to put drawn scores into."""
    for task in tasks:
        make_record(root, (), 0.8, task=task)
        for dropped in plans.values():
            make_record(root, dropped, 0.8, task=task)
    return read_results(root)


def drawn(results, seeds, rng, *, examples, spread, gains=None):
    """Return results whose scores are drawn: a level of its own each task, a spread over seeds, rows that are sampled.

    Args:
        spread: standard deviation over seeds of a model's true score.
        gains: plan → what it is better by.
    """
    runs = []
    for task in {run.task for run in results.runs}:
        hard = rng.beta(4, 1, size=examples)  # chance that a row is answered rightly, by all models alike
        for run in (run for run in results.runs if run.task == task):
            for seed in range(seeds):
                own = np.clip(hard + rng.normal(0, spread) + (gains or {}).get(run.dropped, 0.0), 0, 1)
                score = float((rng.random(examples) < own).mean())
                group = f"{run.group} {seed}"
                measured = Measurement(score, examples)
                runs.append(replace(run, digest=f"{run.digest}{seed}", seed=seed, measured=measured, group=group))
    full = {run.group: run.measured for run in runs if not run.dropped}
    return Results(tuple(replace(run, full=full[run.group]) for run in runs))


def decided(results, numbers):
    found = {v.number: v.verdict for v in verdicts(results) if v.number in numbers}
    return {number for number, verdict in found.items() if verdict in (SUPPORTED, NOT_SUPPORTED)}


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("tasks", [("mrpc",), ("mrpc", "rte", "sst2")], ids=["one task", "three tasks"])
def test_chance_decides_a_claim_about_strategies_in_at_most_one_report_of_twenty(seeds, tasks, tmp_path):
    results = template(tmp_path, {**BY_POSITION, "last": (5,), "odd": (4,)}, tasks)
    rng = np.random.default_rng(1)
    counts = dict.fromkeys((2, 3, 4), 0)
    for _ in range(REPORTS):
        for number in decided(drawn(results, seeds, rng, examples=400, spread=0.03), counts):
            counts[number] += 1
    assert all(count / REPORTS <= AT_MOST for count in counts.values()), counts


@pytest.mark.parametrize("seeds", [2, 3])
def test_chance_decides_in_at_most_one_of_twenty_with_paired_rows_too(seeds, tmp_path):
    results = template(tmp_path, LAST, ("mrpc",))
    rng, decisions = np.random.default_rng(6), 0
    for report in range(REPORTS):
        expected = rng.integers(0, 2, 300)
        easy = rng.random(300) < 0.8  # for all seeds and plans
        runs = []
        for run in results.pruned():
            for seed in range(seeds):
                flipped = rng.random(300) < abs(rng.normal(0.02, 0.02))  # a seed turns some rows, one more than another
                right = easy ^ flipped
                folder = tmp_path / f"{report}-{run.digest}-{seed}"
                folder.mkdir()
                answers = np.where(right, expected, 1 - expected)
                write_predictions(folder, {"": {"expected": expected.tolist(), "predicted": answers.tolist()}})
                measured = replace(run.measured, value=float(right.mean()))
                runs.append(replace(run, digest=folder.name, seed=seed, measured=measured, folder=folder))
        (found,) = [v for v in verdicts(Results(tuple(runs))) if v.number == 3]
        assert "rows paired" in found.evidence
        decisions += found.verdict != INCONCLUSIVE
    assert decisions / REPORTS <= AT_MOST


@pytest.mark.parametrize("seeds", [2, 3])
def test_chance_does_not_make_a_loss_at_the_bound_safe_or_unsafe(seeds, tmp_path):
    results = template(tmp_path, {"top": (4, 5)}, ("mrpc",))
    rng = np.random.default_rng(2)
    count = sum(
        bool(decided(drawn(results, seeds, rng, examples=400, spread=0.02, gains={(4, 5): -0.022}), {10}))
        for _ in range(REPORTS)
    )
    assert count / REPORTS <= AT_MOST


def test_what_is_far_apart_is_decided_all_the_same(tmp_path):
    results = template(tmp_path, BY_POSITION, ("mrpc", "rte", "sst2"))
    rng = np.random.default_rng(3)
    gains = {(0, 1): -0.30, (4, 5): 0.10}
    found = [decided(drawn(results, 3, rng, examples=2000, spread=0.01, gains=gains), {2, 4}) for _ in range(20)]
    assert sum(4 in each for each in found) >= 18, found


def predictions(rng, examples, right):
    expected = rng.integers(0, 2, examples)
    return expected, np.where(rng.random(examples) < right, expected, 1 - expected)


def test_equal_seeds_do_not_make_a_difference_certain(tmp_path):
    for dropped, score in ((), 0.85), ((4, 5), 0.80), ((0, 1), 0.79):
        for seed in range(3):
            make_record(tmp_path, dropped, score, seed=seed, examples=400)
    found = next(v for v in verdicts(read_results(tmp_path)) if v.number == 4)
    assert found.verdict == INCONCLUSIVE and "+1.00 (95 %: -" in found.evidence


def test_rows_that_two_models_answer_alike_say_nothing_about_their_difference(tmp_path):
    rng = np.random.default_rng(4)
    expected = rng.integers(0, 2, 400)
    top = np.where(rng.random(400) < 0.8, expected, 1 - expected)
    bottom = top.copy()
    turned = np.flatnonzero(top == expected)[:12]
    bottom[turned] = 1 - bottom[turned]
    found = {}
    for paired in (False, True):
        root = tmp_path / str(paired)
        for dropped, answers in ((4, 5), top), ((0, 1), bottom):
            more = {"predictions": (expected.tolist(), answers.tolist())} if paired else {}
            make_record(root, dropped, float((answers == expected).mean()), examples=400, **more)
        one, other = read_results(root).runs
        found[paired] = row_variance([(1.0, one), (-1.0, other)])
    assert found[False][1] is False and found[True][1] is True
    assert found[True][0] ** 0.5 == pytest.approx((0.03 * 0.97 / 400) ** 0.5, rel=0.1), "12 of 400 rows differ"
    assert found[True][0] < 0.2 * found[False][0]


def test_predictions_of_another_record_are_not_taken(tmp_path):
    make_record(tmp_path, (4, 5), 0.80, predictions=([0, 1] * 200, [0, 1] * 200))  # which are all right
    (run,) = read_results(tmp_path).runs
    assert row_variance([(1.0, run)])[1] is False


@pytest.mark.parametrize("name", METRICS)
def test_the_bootstrap_has_the_metrics_that_tasks_are_scored_by(name):
    from depthprune.tasks.metrics.base import registry as scored

    assert set(METRICS) == set(scored.names())
    rng = np.random.default_rng(5)
    if name in ("pearson", "spearman"):
        expected = rng.integers(0, 10, 50) / 2
        predicted = expected + rng.normal(size=50)
    elif name == "perplexity":  # tokens of a block, and their loss
        expected, predicted = rng.integers(4, 9, 50), rng.random(50) * 20
    else:
        expected, predicted = predictions(rng, 50, 0.7)
    rows = rng.integers(0, 50, 50)  # a resample; ranks are those of the whole, so correlate it with itself
    rows = np.arange(50) if name == "spearman" else rows
    weights = np.bincount(rows, minlength=50).astype(float)[None]
    expected, predicted = expected.astype(float), predicted.astype(float)
    theirs = scored.get(name).function(expected[rows].tolist(), predicted[rows].tolist())
    assert METRICS[name](expected, predicted, weights)[0] == pytest.approx(theirs)
