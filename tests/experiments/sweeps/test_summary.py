"""What a store knows in numbers: the best plan for each task, and what it keeps."""

import pytest

from depthprune.experiments.store.records import records
from depthprune.experiments.store.store import Store
from depthprune.experiments.sweeps.status import best_plans
from made_records import make_record


def best_of(root):
    (best,) = best_plans([record for _, record in records(Store(root)) if record])
    return best


def test_the_best_plan_is_the_best_on_average_over_seeds_and_not_by_its_best_seed(tmp_path):
    for seed, (lucky, steady) in enumerate([(0.90, 0.82), (0.60, 0.80)]):
        make_record(tmp_path, (), 0.85, seed=seed)
        make_record(tmp_path, (4, 5), lucky, seed=seed)
        make_record(tmp_path, (0, 1), steady, seed=seed)
    best = best_of(tmp_path)
    assert best.record["spec"]["drop"]["dropped"] == [0, 1] and best.seeds == 2
    assert (best.measured.value, best.spread) == (pytest.approx(0.81), pytest.approx(0.0141, abs=1e-4))
    assert best.retention == pytest.approx(0.81 / 0.85)


def test_runs_of_different_data_are_no_seeds_of_one_another(tmp_path):
    make_record(tmp_path, (4, 5), 0.90, data="sha256:one", seed=1)
    make_record(tmp_path, (4, 5), 0.50, data="sha256:two", seed=2)
    make_record(tmp_path, (0, 1), 0.80, data="sha256:one", seed=1)
    assert best_of(tmp_path).measured.value == 0.90, "the mean with other data would be 0.70"


@pytest.mark.parametrize("full, pruned, kept", [(0.8, -0.9, 0.0), (-0.1, 0.5, None), (0.0, 0.5, None)])
def test_what_a_regression_keeps_is_no_negative_share(full, pruned, kept, tmp_path):
    make_record(tmp_path, (), full)
    make_record(tmp_path, (4, 5), pruned)
    assert best_of(tmp_path).retention == kept
