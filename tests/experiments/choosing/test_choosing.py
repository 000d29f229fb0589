"""The choice of a run's layers: what cannot be is refused before a model is run for it."""

from typing import Any

import pytest

from depthprune.errors import PlanError, UserError
from depthprune.experiments.choosing.choose import Choice, choose_plan

NOTHING: Any = None  # a model or data that would be needed only by a pass


@pytest.mark.parametrize(
    "choice, message",
    [
        (Choice("contribution", threshold=1.5), "--threshold 1.5 is not a cosine"),
        (Choice("angular", threshold=0.9), "--threshold is a cosine: it goes with contribution or block-influence"),
    ],
)
def test_a_threshold_that_says_nothing_is_refused_before_anything_is_loaded(choice, message):
    with pytest.raises(PlanError, match=message):
        choice.check()


@pytest.mark.parametrize(
    "choice, message",
    [
        (Choice("contribution", count=6), "cannot drop 6 of 6 layers; --count is 1 to 5"),
        (Choice("contribution", count=5, protect="0,-1"), "cannot drop 5 of 6 layers with 2 protected"),
        (Choice("contribution", count=1, protect="x"), "--protect x is not a list of layers"),
        (Choice("contribution", threshold=0.9, protect="6"), "layer 6 does not exist"),
    ],
)
def test_what_no_scores_can_serve_is_refused_before_the_pass(choice, message, tmp_path):
    choice.check()
    how: dict[str, Any] = {"max_length": 16, "store": tmp_path, "device": "cpu", "on_progress": print}
    with pytest.raises(PlanError, match=message):
        choose_plan(choice, 6, NOTHING, NOTHING, **how)


def test_an_unknown_strategy_is_told_the_nearest_search_or_score_too():
    with pytest.raises(UserError, match=r"no strategy is named 'grredy'; did you mean 'greedy'\?"):
        Choice("grredy", count=2).check()
