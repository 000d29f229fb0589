"""Searches on toy objectives, whose optimum is known."""

import itertools
import json

import pytest

from depthprune.errors import PlanError, UserError
from depthprune.plan import LayerPlan
from depthprune.strategies.evaluator import Evaluator, FunctionObjective, read_trace
from depthprune.strategies.searched import MOST_PLANS, Space, methods, trials

COST = (9.0, 4.0, 1.0, 2.0, 3.0, 8.0)


def additive(plan):
    """Cost of layers that do not mind each other."""
    return sum(COST[i] for i in plan.dropped)


def deceptive(plan):
    """Layers 2 and 3 are cheap alone and dear together; 1 and 4 the other way round."""
    dropped = set(plan.dropped)
    return additive(plan) + 10 * ({2, 3} <= dropped) - 5 * ({1, 4} <= dropped)


def best(function, count, protected=()):
    free = [i for i in range(6) if i not in protected]
    return min(itertools.combinations(free, count), key=lambda dropped: function(LayerPlan(6, dropped)))


@pytest.mark.parametrize("name", methods.names())
def test_every_search_finds_the_optimum_of_layers_that_do_not_mind_each_other(name):
    space = Space(6, (1, 2, 3), frozenset({2}))
    found = methods.get(name).function(Evaluator(FunctionObjective(additive)), space)
    assert {count: plan.dropped for count, plan in found.items()} == {k: best(additive, k, (2,)) for k in (1, 2, 3)}


def test_exhaustive_and_beam_find_what_greedy_misses():
    def found(name):
        return methods.get(name).function(Evaluator(FunctionObjective(deceptive)), Space(6, (2,), width=6))[2].dropped

    assert found("exhaustive") == found("beam") == best(deceptive, 2) == (1, 4)
    assert found("greedy") != (1, 4)
    assert found("evolutionary") == (1, 4)


@pytest.mark.parametrize("name", methods.names())
def test_a_search_evaluates_nothing_twice_and_the_same_seed_gives_the_same_plans(name):
    seen = []

    def once(plan):
        assert plan.dropped not in seen
        seen.append(plan.dropped)
        return deceptive(plan)

    space = Space(6, (1, 2, 3))
    first = methods.get(name).function(Evaluator(FunctionObjective(once)), space)
    number, total = len(seen), trials(name, space)
    assert total is None or number == total
    seen.clear()
    assert methods.get(name).function(Evaluator(FunctionObjective(once)), space) == first


def test_greedy_gives_nested_plans_for_every_count_on_its_way():
    found = methods.get("greedy").function(Evaluator(FunctionObjective(deceptive)), Space(6, (1, 2, 3, 4)))
    for count in (1, 2, 3):
        assert set(found[count].dropped) < set(found[count + 1].dropped)


def test_an_exhaustive_search_that_would_take_for_ever_is_refused():
    space = Space(32, (8,))
    assert (trials("exhaustive", space) or 0) > MOST_PLANS
    with pytest.raises(PlanError, match=r"10,518,300 plans.*--method greedy"):
        methods.get("exhaustive").function(Evaluator(FunctionObjective(additive)), space)


@pytest.mark.parametrize("counts, protected", [((6,), ()), ((0,), ()), ((5,), (0, 1)), ((), ())])
def test_counts_that_leave_no_layer_are_refused(counts, protected):
    with pytest.raises(PlanError, match="--count is 1 to"):
        Space(6, counts, frozenset(protected))


class Batched:
    """A cost of twenty batches: what a plan costs, plus noise that all plans share, plus a little of its own."""

    num_batches = 20

    def __init__(self, stop_after=None):
        self.calls, self.kept, self._stop_after = [], [], stop_after

    def batch(self, plan, number):
        if self._stop_after is not None and len(self.calls) == self._stop_after:
            raise KeyboardInterrupt
        self.calls.append((plan.dropped, number))
        return 10 * (deceptive(plan) + (number * 7 % 5) + 0.01 * ((number + sum(plan.dropped)) % 3)), 10

    def finish(self, mean):
        return mean

    def keep(self, plans):
        self.kept.append([plan.dropped for plan in plans])

    def warm(self, plan):
        pass


@pytest.mark.parametrize("name", methods.names())
def test_a_race_saves_batches_and_finds_the_same_plan(name):
    space = Space(6, (1, 2))
    slow, fast = Batched(), Batched()
    whole = methods.get(name).function(Evaluator(slow), space)
    raced = methods.get(name).function(Evaluator(fast, race=True), space)
    assert raced == whole
    assert len(fast.calls) <= len(slow.calls)
    if name in ("greedy", "exhaustive"):
        assert len(fast.calls) < 0.6 * len(slow.calls)


def test_a_race_needs_batches():
    with pytest.raises(UserError, match="at least 8 batches, and there are 1"):
        Evaluator(FunctionObjective(additive), race=True)


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("race", [False, True])
def test_a_search_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(name, race, tmp_path):
    space, header = Space(6, (1, 2)), {"what": name}
    whole = Batched()
    wanted = methods.get(name).function(Evaluator(whole, race=race), space)
    trace, done = tmp_path / "t.jsonl", []
    for stop_after in (35, 50, None):
        objective = Batched(stop_after)
        with Evaluator(objective, trace=trace, header=header, race=race) as evaluator:
            try:
                found = methods.get(name).function(evaluator, space)
            except KeyboardInterrupt:
                # The plan at hand was not written down; everything before it was.
                assert stop_after is not None
            done += objective.calls
    assert found == wanted
    lost = len(done) - len(set(done))
    assert set(done) == set(whole.calls) and lost <= 2 * Batched.num_batches


def test_a_line_that_was_cut_off_is_taken_away(tmp_path):
    trace = tmp_path / "t.jsonl"
    with Evaluator(FunctionObjective(additive), trace=trace, header={"a": 1}) as evaluator:
        for i in range(3):
            evaluator.value(LayerPlan(6, (i,)))
    whole = trace.read_text()
    trace.write_text(whole[:-20])
    with Evaluator(FunctionObjective(additive), trace=trace, header={"a": 1}) as evaluator:
        for i in range(3):
            evaluator.value(LayerPlan(6, (i,)))
        assert evaluator.evaluated == 1
    assert [entry["dropped"] for entry in read_trace(trace)] == [[0], [1], [2]]


def test_the_trace_of_another_search_and_a_broken_one_are_refused(tmp_path):
    trace = tmp_path / "t.jsonl"
    with Evaluator(FunctionObjective(additive), trace=trace, header={"a": 1}) as evaluator:
        evaluator.value(LayerPlan(6, (1,)))
    with pytest.raises(UserError, match="trace of another search"):
        Evaluator(FunctionObjective(additive), trace=trace, header={"a": 2})
    with trace.open("a") as file:
        file.write(json.dumps({"dropped": [1], "from": 5, "parts": []}) + "\n")
    with pytest.raises(UserError, match="line 3 of the trace"):
        Evaluator(FunctionObjective(additive), trace=trace, header={"a": 1})
