"""Plans are values: which indices they take, refuse, and print."""

import itertools

import pytest

from depthprune.errors import PlanError
from depthprune.plan import LayerPlan, format_layers, parse_layers


def test_dropped_layers_are_stored_in_order():
    plan = LayerPlan(6, (5, 0, 3))
    assert plan.dropped == (0, 3, 5)
    assert plan.kept == (1, 2, 4)
    assert plan.count == 3
    assert plan == LayerPlan(6, (3, 5, 0))
    assert hash(plan) == hash(LayerPlan(6, (3, 5, 0)))


def test_a_plan_may_drop_nothing():
    plan = LayerPlan(3, ())
    assert (plan.dropped, plan.kept, plan.count) == ((), (0, 1, 2), 0)


def test_a_kept_layer_has_a_new_index_and_a_dropped_one_has_none():
    plan = LayerPlan(5, (0, 3))
    assert [plan.new_index(layer) for layer in range(5)] == [None, 0, 1, None, 2]


def test_dropping_and_keeping_are_two_ways_to_say_one_thing():
    for depth in range(1, 6):
        for count in range(depth):
            for dropped in itertools.combinations(range(depth), count):
                plan = LayerPlan(depth, dropped)
                assert set(plan.kept) | set(plan.dropped) == set(range(depth))
                assert LayerPlan.from_kept(depth, reversed(plan.kept)) == plan


@pytest.mark.parametrize(
    ("depth", "dropped", "message"),
    [
        (12, (12, 3, 14), "layers [12, 14] do not exist: the stack has layers 0 to 11"),
        (12, (-1, 3), "layers [-1] are negative: count from 0, the layer nearest the input"),
        (12, (3, 4, 3), "layers [3] are given twice; give each layer once"),
        (3, (0, 1, 2), "dropping all 3 layers leaves no model; keep at least one"),
        (1, (0,), "dropping all 1 layers leaves no model; keep at least one"),
        (0, (), "a stack has at least one layer, not 0"),
    ],
)
def test_layers_that_cannot_be_dropped_are_named(depth, dropped, message):
    with pytest.raises(PlanError) as caught:
        LayerPlan(depth, dropped)
    assert str(caught.value) == message


@pytest.mark.parametrize("kept", [(12,), (-1,), (3, 3), ()])
def test_layers_that_cannot_be_kept_are_refused(kept):
    with pytest.raises(PlanError):
        LayerPlan.from_kept(12, kept)


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("3", (3,)),
        ("8,9-11", (8, 9, 10, 11)),
        (" 8 , 9 - 11 ", (8, 9, 10, 11)),
        ("5-5", (5,)),
        ("11,2", (11, 2)),
        ("1 1", (1, 1)),
        ("1 2-3", (1, 2, 3)),
    ],
)
def test_a_list_of_layers_is_read_with_both_ends_of_its_ranges(text, layers):
    assert parse_layers(text) == layers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a list of layers: '' is not a layer or a range; write 8,9-11"),
        ("8,", "'8,' is not a list of layers: '' is not a layer or a range; write 8,9-11"),
        ("8;9", "'8;9' is not a list of layers: '8;9' is not a layer or a range; write 8,9-11"),
        ("3.5", "'3.5' is not a list of layers: '3.5' is not a layer or a range; write 8,9-11"),
        (
            "-1",
            "'-1' is not a list of layers: '-1' is not a layer or a range; count from 0, the layer nearest the input",
        ),
        (
            "1 -2",
            "'1 -2' is not a list of layers: '-2' is not a layer or a range; count from 0, the layer nearest the input",
        ),
        ("11-9", "the range '11-9' runs backwards; write 9-11"),
    ],
)
def test_what_is_not_a_list_of_layers_is_explained(text, message):
    with pytest.raises(PlanError) as caught:
        parse_layers(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("layers", "text"), [((), ""), ((3,), "3"), ((10, 8, 0, 9), "0,8-10"), ((1, 2, 4, 5), "1-2,4-5"), ((0, 2), "0,2")]
)
def test_runs_of_layers_are_written_as_ranges(layers, text):
    assert format_layers(layers) == text


def test_what_is_written_is_read_back():
    for count in range(1, 7):
        for layers in itertools.combinations(range(6), count):
            assert parse_layers(format_layers(layers)) == layers


def test_a_slip_of_the_finger_does_not_fill_the_memory():
    with pytest.raises(PlanError, match="layer 99999999 in '0-99999999' does not exist"):
        parse_layers("0-99999999")
