"""A linear probe: how much of a task's answer can be read off a representation by a straight line (scikit-learn).

Classes are told apart by logistic regression, numbers by ridge regression, both with scikit-learn's usual strength of
1. Each feature is brought to mean 0 and standard deviation 1 by the training rows.

Shapes: N rows, D features.
"""

import logging
import warnings
from typing import TYPE_CHECKING, Any

from depthprune.evaluation.base import score
from depthprune.optional import require
from depthprune.tasks.base import Task

if TYPE_CHECKING:
    import numpy as np

PURPOSE = "a probe"
MOST_STEPS = 5000  # some hundreds are usual
ROUNDING = 1e-6  # of float32, with room for a norm or two

log = logging.getLogger(__name__)


def probe_score(
    task: Task, train_ND: "np.ndarray", train_labels: list, evaluation_ND: "np.ndarray", evaluation_labels: list
) -> tuple[float, list]:
    """Fit a probe and return the task's primary metric on other rows, a fraction, and what it answers there.

    A representation that is the same for all rows (the embedding of a first token) leaves the largest class, or the
    mean, to be predicted.

    Raises:
        UserError: scikit-learn is not installed.
    """
    probe = _probe(task)
    train, evaluation = _without_rounding(train_ND, evaluation_ND)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where steps ran out: a separate line tells
        probe.fit(train, train_labels)
    if task.labels and max(probe[-1].n_iter_) >= MOST_STEPS:
        log.info("a probe of '%s' was not at its best after %d steps", task.name, MOST_STEPS)
    predicted = probe.predict(evaluation).tolist()
    return score(task, evaluation_labels, predicted)[task.metrics[0]], predicted


def _probe(task: Task) -> Any:
    pipeline = require("sklearn.pipeline", extra="metrics", purpose=PURPOSE)
    scaler = require("sklearn.preprocessing", extra="metrics", purpose=PURPOSE).StandardScaler()
    linear = require("sklearn.linear_model", extra="metrics", purpose=PURPOSE)
    last = linear.Ridge() if task.regression else linear.LogisticRegression(max_iter=MOST_STEPS)
    return pipeline.make_pipeline(scaler, last)


def _without_rounding(train_ND: "np.ndarray", evaluation_ND: "np.ndarray") -> tuple["np.ndarray", "np.ndarray"]:
    """Set features that differ by no more than rounding to 0, which scaling would blow up, and go over to float64."""
    import numpy as np

    train, evaluation = train_ND.astype(np.float64), evaluation_ND.astype(np.float64)
    same_D = train.std(axis=0) <= ROUNDING * np.abs(train).max()
    train[:, same_D] = 0.0
    evaluation[:, same_D] = 0.0
    return train, evaluation
