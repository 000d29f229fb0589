"""The smallest model within a bound, over records that are there already."""

import pytest

from depthprune.errors import UserError
from depthprune.experiments import auto
from depthprune.experiments.auto import Bounds, find, parse_loss, within_budget
from depthprune.experiments.expansion import Expansion, Job
from depthprune.experiments.store import Store
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

    def carry_out(jobs, store, *, redo, save, **_):
        for digest in jobs.jobs:
            if not (store.folder(digest) / "record.json").exists():
                (store.root / "later.json").rename(store.folder(digest) / "record.json")
                store.model_folder(digest).mkdir()
            elif redo:
                store.model_folder(digest).mkdir()
                asked.append(digest)
            yield digest, "done", ""

    monkeypatch.setattr(auto, "carry_out", carry_out)
    assert find(expansion(), store, Bounds(0.01)).digest == recorded
    assert asked == [recorded], "only the answer is run again for its checkpoint"
    assert sorted(folder.parent.name for folder in store.root.glob("*/model")) == sorted([before, recorded])


def test_no_model_within_the_bounds_is_an_answer_too(store):
    answer = find(expansion(), store, Bounds(max_parameters=1))
    assert answer.digest is None and len(answer.tried) == len(SCORES)


def test_a_budget_leaves_plans_out_and_says_so(store, tmp_path):
    empty = Store(tmp_path / "empty")
    assert len(within_budget(expansion(), empty, 2).jobs) == 3, "two plans and the full model"
    assert len(within_budget(expansion(), store, 2).jobs) == len(SCORES), "what is stored costs nothing"
    assert find(expansion(), store, Bounds(0.01), budget=1).complete


@pytest.mark.parametrize("text", ["x", "-1", "101", "1 point"])
def test_a_bound_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="is no loss; write"):
        parse_loss(text)
