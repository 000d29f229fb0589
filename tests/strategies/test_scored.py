"""Plans from scores, without a model."""

import json

import pytest

from depthprune.errors import LoadError, PlanError, UserError
from depthprune.scores import LayerScores, Scores, read_scores
from depthprune.strategies.scored import lowest, parse_protected, plan_scored, under, window

SIX = LayerScores((0.5, 0.03, 0.2, 0.04, 0.2, 0.6), {1: (0.5, 0.03, 0.2, 0.04, 0.2, 0.6), 2: (0.6, 0.3, 0.2, 0.2, 0.9)})


def scores(metric="contribution", values=SIX):
    model = {"name": "m", "identity": "sha256:abc", "class": "BertModel", "weights": "pre-trained"}
    return Scores(model, "layers", 6, metric, {metric: values}, {"fingerprint": "sha256:d", "samples": 2})


def test_the_lowest_go_and_of_two_that_tie_the_one_nearer_the_output():
    assert lowest(SIX, 2) == (1, 3)
    assert lowest(SIX, 3) == (1, 3, 4)
    assert lowest(SIX, 3, frozenset({1, 4})) == (0, 2, 3)
    assert lowest(SIX, 2, frozenset({1, 4})) == (2, 3)


def test_a_threshold_is_a_cosine_and_the_count_is_the_outcome():
    assert under(SIX, 0.95) == (1, 3)
    assert under(SIX, 0.95, frozenset({3})) == (1,)
    assert under(SIX, 0.75) == (1, 2, 3, 4)


@pytest.mark.parametrize("threshold, what", [(0.99, "no layer"), (0.1, "every layer")])
def test_a_threshold_that_selects_nothing_or_everything_says_what_the_scores_are(threshold, what):
    with pytest.raises(PlanError, match=rf"{what}: the mean cosines of layers 0 to 5 are 0.500, 0.970"):
        under(SIX, threshold)


def test_the_best_window_goes_and_avoids_what_is_protected():
    assert window(SIX, 2) == (3, 4)
    assert window(SIX, 2, frozenset({4})) == (2, 3)
    with pytest.raises(PlanError, match="every 2 consecutive layers contain a protected one"):
        window(SIX, 2, frozenset({1, 3, 5}))


def test_each_metric_selects_as_its_paper_does():
    assert plan_scored(scores("angular"), count=2).dropped == (3, 4)
    assert plan_scored(scores("contribution"), count=2).dropped == (1, 3)
    assert plan_scored(scores("contribution"), count=2, select="window").dropped == (3, 4)
    assert plan_scored(scores("contribution"), threshold=0.95).dropped == (1, 3)
    assert plan_scored(scores("contribution"), count=2, protect="-1,3").dropped == (1, 4)


@pytest.mark.parametrize(
    "asked, message",
    [
        ({}, "need --count"),
        ({"count": 2, "threshold": 0.9}, "give one"),
        ({"count": 6}, "--count is 1 to 5"),
        ({"count": 5, "protect": "0-2"}, "3 protected; --count is 1 to 3"),
        ({"count": 2, "select": "windw"}, "no --select 'windw'"),
        ({"threshold": 2.0}, "not a cosine"),
        ({"count": 2, "protect": "7"}, "layer 7 does not exist"),
        ({"count": 2, "protect": "x"}, "not a list of layers"),
        ({"count": 2, "method": "taylor"}, "the scores have no 'taylor'"),
    ],
)
def test_what_cannot_be_chosen_is_refused(asked, message):
    with pytest.raises(UserError, match=message):
        plan_scored(scores(), **asked)


def test_a_threshold_goes_with_cosines_only():
    with pytest.raises(PlanError, match="--threshold is a cosine"):
        plan_scored(scores("angular"), threshold=0.9)


def test_protected_layers_can_be_counted_from_the_last():
    assert parse_protected("0,-1", 6) == {0, 5}
    assert parse_protected("0-2,-2", 6) == {0, 1, 2, 4}
    assert parse_protected(None, 6) == frozenset()


def test_a_score_file_comes_back_as_it_was(tmp_path):
    file = tmp_path / "s.json"
    file.write_text(json.dumps(scores().to_dict()))
    assert read_scores(file) == scores()


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"format": "other"}', json.dumps({**scores().to_dict(), "depth": 7}), '{"depth": 6}'],
)
def test_a_file_that_is_no_score_file_is_refused(content, tmp_path):
    file = tmp_path / "s.json"
    file.write_text(content)
    with pytest.raises(LoadError, match="is not a score file"):
        read_scores(file)


def test_scores_of_another_model_are_refused():
    scores().check_model("sha256:abc")
    with pytest.raises(UserError, match="those of another model, 'm'"):
        scores().check_model("sha256:abd")
