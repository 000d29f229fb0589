"""The paper's strategies: its tables, written out, and the contract that every strategy keeps."""

import pytest

from depthprune.errors import PlanError, UserError
from depthprune.plan import LayerPlan
from depthprune.strategies import choose, plan_layers, plan_stacks, possible_counts, registry, same_choice

# Sajjad et al., section 3: layers dropped from 12 (BERT, RoBERTa, XLNet), from 0 where the paper counts from 1.
TWELVE_LAYERS = {
    ("top", 2): (10, 11),
    ("top", 4): (8, 9, 10, 11),
    ("top", 6): (6, 7, 8, 9, 10, 11),
    ("even-alternate", 2): (9, 11),
    ("even-alternate", 4): (5, 7, 9, 11),
    ("even-alternate", 6): (1, 3, 5, 7, 9, 11),
    ("odd-alternate", 2): (8, 10),
    ("odd-alternate", 4): (4, 6, 8, 10),
    ("odd-alternate", 6): (0, 2, 4, 6, 8, 10),
    ("symmetric", 2): (5, 6),
    ("symmetric", 4): (4, 5, 6, 7),
    ("symmetric", 6): (3, 4, 5, 6, 7, 8),
    ("bottom", 2): (0, 1),
    ("bottom", 4): (0, 1, 2, 3),
    ("bottom", 6): (0, 1, 2, 3, 4, 5),
}
# DistilBERT.
SIX_LAYERS = {
    ("top", 1): (5,),
    ("top", 2): (4, 5),
    ("top", 3): (3, 4, 5),
    ("even-alternate", 1): (5,),
    ("even-alternate", 2): (3, 5),
    ("even-alternate", 3): (1, 3, 5),
    ("odd-alternate", 1): (4,),
    ("odd-alternate", 2): (2, 4),
    ("odd-alternate", 3): (0, 2, 4),
    ("symmetric", 2): (2, 3),
    ("bottom", 1): (0,),
    ("bottom", 2): (0, 1),
    ("bottom", 3): (0, 1, 2),
}
PAPERS_FIVE = {"top", "even-alternate", "odd-alternate", "symmetric", "bottom"}
DEPTHS = range(1, 14)


def test_the_five_strategies_of_the_paper_are_there():
    assert set(registry.names()) >= PAPERS_FIVE


@pytest.mark.parametrize(("name", "count"), TWELVE_LAYERS)
def test_of_twelve_layers_the_papers_are_dropped(name, count):
    assert choose(name, depth=12, count=count) == LayerPlan(12, TWELVE_LAYERS[name, count])


@pytest.mark.parametrize(("name", "count"), SIX_LAYERS)
def test_of_six_layers_the_papers_are_dropped(name, count):
    assert choose(name, depth=6, count=count) == LayerPlan(6, SIX_LAYERS[name, count])


@pytest.mark.parametrize("name", registry.names())
def test_every_strategy_returns_as_many_layers_as_asked_in_order_and_in_range(name):
    part, served = registry.get(name), 0
    for depth in DEPTHS:
        for count in possible_counts(name, depth):
            dropped = part.function(depth, count)
            assert isinstance(dropped, tuple)
            assert len(dropped) == count, (depth, count)
            assert list(dropped) == sorted(set(dropped)), (depth, count)
            assert set(dropped) <= set(range(depth)), (depth, count)
            served += 1
    assert served > 0


@pytest.mark.parametrize("name", registry.names())
def test_every_strategy_has_a_paper_and_says_what_it_does(name):
    part = registry.get(name)
    assert part.name == name
    assert part.paper.startswith("https://")
    assert part.summary[:1].isupper()


@pytest.mark.parametrize("name", registry.names())
def test_every_count_that_a_strategy_cannot_serve_is_a_plan_error(name):
    for depth in DEPTHS:
        for count in set(range(-1, depth + 2)) - set(possible_counts(name, depth)):
            with pytest.raises(PlanError):
                choose(name, depth, count)


@pytest.mark.parametrize("count", [-1, 0, 12, 13])
def test_a_count_out_of_range_is_refused_with_the_range(count):
    with pytest.raises(PlanError, match=f"cannot drop {count} of 12 layers; --count is a number from 1 to 11"):
        choose("top", depth=12, count=count)


def test_nothing_can_be_dropped_from_a_single_layer():
    with pytest.raises(PlanError, match="cannot drop 1 of 1 layers; the stack has a single layer"):
        choose("top", depth=1, count=1)


@pytest.mark.parametrize(
    ("depth", "count", "near"), [(12, 3, "2 or 4"), (12, 1, "2"), (12, 11, "10"), (5, 2, "1 or 3")]
)
def test_symmetric_names_the_nearest_counts_it_can_serve(depth, count, near):
    with pytest.raises(PlanError, match=f"dropping {count} of {depth} does not allow; the nearest possible: {near}$"):
        choose("symmetric", depth, count)


def test_symmetric_can_serve_every_count_it_names():
    for depth in DEPTHS:
        for count in set(range(1, depth)) - set(possible_counts("symmetric", depth)):
            with pytest.raises(PlanError) as caught:
                choose("symmetric", depth, count)
            named = str(caught.value).rpartition("; ")[2]
            near = [k for k in possible_counts("symmetric", depth) if abs(k - count) == 1]
            expected = f"the nearest possible: {' or '.join(map(str, near))}" if near else "none is possible"
            assert named == expected, (depth, count)


@pytest.mark.parametrize(
    ("name", "depth", "most"),
    [("even-alternate", 12, 6), ("odd-alternate", 12, 6), ("even-alternate", 7, 4), ("odd-alternate", 7, 3)],
)
def test_an_alternate_strategy_says_how_many_layers_it_has_to_drop(name, depth, most):
    assert possible_counts(name, depth) == tuple(range(1, most + 1))
    message = f"{name} can drop at most {most} of {depth} layers, not {most + 1}; give --count 1 to {most}"
    with pytest.raises(PlanError, match=message):
        choose(name, depth, most + 1)


def test_odd_depths_are_counted_from_the_last_layer():
    assert choose("even-alternate", depth=7, count=4).dropped == (0, 2, 4, 6)
    assert choose("odd-alternate", depth=7, count=3).dropped == (1, 3, 5)
    assert choose("symmetric", depth=7, count=3).dropped == (2, 3, 4)
    assert possible_counts("symmetric", depth=7) == (1, 3, 5)


def test_an_unknown_strategy_gets_the_nearest_name():
    with pytest.raises(UserError, match=r"no strategy is named 'topp'; did you mean 'top'\? \(known: bottom, even-"):
        choose("topp", depth=12, count=4)


def test_strategies_that_make_the_same_choice_are_found():
    assert same_choice(LayerPlan(12, (11,))) == ("even-alternate", "top")
    assert same_choice(LayerPlan(12, (0, 2, 4))) == ()
    assert same_choice(LayerPlan(12, ())) == ()


def test_a_plan_is_made_from_any_one_way_of_writing_it():
    wanted = LayerPlan(12, (8, 9, 10, 11))
    assert plan_layers(12, strategy="top", count=4) == wanted
    assert plan_layers(12, layers="8,9-11") == wanted
    assert plan_layers(12, keep="0-7") == wanted
    assert plan_layers(12) == LayerPlan(12, ())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": "3", "keep": "4"}, "--layers and --keep exclude each other; give one"),
        ({"strategy": "top", "count": 2, "layers": "3"}, "--strategy and --layers exclude each other; give one"),
        ({"strategy": "top", "count": 2, "keep": "3"}, "--strategy and --keep exclude each other; give one"),
        ({"layers": "3", "count": 1}, "--count 1 needs a strategy: --strategy bottom |"),
        ({"count": 2}, "--count 2 needs a strategy: --strategy bottom |"),
        ({"strategy": "top"}, "--strategy top needs --count, how many layers to drop (1 to 11)"),
        ({"strategy": "topp"}, "no strategy is named 'topp'; did you mean 'top'?"),
        ({"layers": ""}, "'' is not a list of layers"),
        ({"layers": "12"}, "layers [12] do not exist: the stack has layers 0 to 11"),
        ({"keep": "12"}, "layers [12] do not exist: the stack has layers 0 to 11"),
    ],
)
def test_ways_that_exclude_each_other_or_lack_something_are_refused(given, message):
    with pytest.raises(UserError) as caught:
        plan_layers(12, **given)
    assert str(caught.value).startswith(message)


TWO = {"encoder": 12, "decoder": 6}
SEVERAL = "the model has several stacks: 'encoder' (12 layers), 'decoder' (6 layers)"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"strategy": "top", "counts": ["decoder=2"]}, {"decoder": LayerPlan(6, (4, 5))}),
        (
            {"strategy": "top", "counts": ["encoder=1"], "keep": ["decoder=0-2"]},
            {"encoder": LayerPlan(12, (11,)), "decoder": LayerPlan(6, (3, 4, 5))},
        ),
        (
            {"layers": ["encoder=1,3", "decoder=0"]},
            {"encoder": LayerPlan(12, (1, 3)), "decoder": LayerPlan(6, (0,))},
        ),
    ],
)
def test_each_stack_gets_the_plan_that_names_it(given, expected):
    assert plan_stacks(TWO, **given) == expected


def test_a_single_stack_need_not_be_named():
    for text in ("1,3", "layers=1,3"):
        assert plan_stacks({"layers": 6}, layers=[text]) == {"layers": LayerPlan(6, (1, 3))}
    assert plan_stacks({"layers": 6}, strategy="top", counts=["2"]) == {"layers": LayerPlan(6, (4, 5))}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": ["1"]}, f"{SEVERAL}; say which one --layers 1 is about: --layers STACK=1"),
        ({"strategy": "top", "counts": ["2"]}, f"{SEVERAL}; say which one --count 2 is about: --count STACK=2"),
        ({"strategy": "top"}, f"{SEVERAL}; --strategy top needs --count STACK=K"),
        ({"strategy": "top", "layers": ["encoder=1", "decoder=1"]}, f"{SEVERAL}; --strategy top needs --count STACK=K"),
        ({"layers": ["encodr=1"]}, "the model has no stack 'encodr'; did you mean 'encoder'?"),
        ({"layers": ["x=1"]}, "the model has no stack 'x'; it has 'encoder' (12 layers), "),
        ({"layers": ["encoder=1", "encoder=2"]}, "--layers is given twice for the stack 'encoder'"),
        ({"layers": ["encoder=1"], "keep": ["encoder=2"]}, "--layers and --keep exclude each other"),
        ({"strategy": "top", "counts": ["decoder=two"]}, "--count two is not a number"),
        ({"counts": ["decoder=2"]}, "--count 2 needs a strategy"),
        ({"layers": ["decoder=6"]}, "layers [6] do not exist: the stack has layers 0 to 5"),
    ],
)
def test_a_plan_for_several_stacks_that_cannot_be_is_refused(given, message):
    with pytest.raises(UserError) as caught:
        plan_stacks(TWO, **given)
    assert str(caught.value).startswith(message)
