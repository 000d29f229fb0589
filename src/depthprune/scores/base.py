"""How much each layer matters, as a value and a file: higher always means keep.

A score file holds the scores of one model on one calibration sample by one or more methods, with the hashes of both, so
that plans can be made later without the model and two files are known to be comparable. No torch here.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from depthprune.errors import LoadError, UserError
from depthprune.registry import Registry, first_line

FORMAT = "depthprune-scores/1"
TOKENS = ("first", "last", "mean")  # what stands for a sequence: a token, or the mean of all real ones


@dataclass(frozen=True)
class LayerScores:
    """The scores of one method.

    Args:
        layers: one for each layer, higher means keep.
        windows: number of layers → score of the window that begins at layer 0, 1, …; empty for methods that score
            single layers only.
    """

    layers: tuple[float, ...]
    windows: Mapping[int, tuple[float, ...]] = field(default_factory=dict)

    def best_window(self, count: int) -> int:
        """Return the first layer of the window of `count` layers with the lowest score; of ties, the last."""
        scores = self.windows[count]
        return min(range(len(scores)), key=lambda start: (scores[start], -start))


@dataclass(frozen=True)
class Scores:
    """What a score file holds.

    Args:
        model: `name`, `identity` (as in a run's spec), `class`, and `weights`: `pre-trained` or `fine-tuned`.
        stack: name of the stack.
        depth: its layers.
        method: the scoring method that was asked for.
        by_method: method → scores; includes the other methods that the same forward pass computes.
        calibration: the data that was used, including its `fingerprint`.
        token: one of `TOKENS`: what stands for a sequence in methods of a single token.
    """

    model: dict[str, Any]
    stack: str
    depth: int
    method: str
    by_method: dict[str, LayerScores]
    calibration: dict[str, Any]
    token: str = "first"
    environment: dict[str, Any] = field(default_factory=dict)

    def of(self, method: str | None = None) -> LayerScores:
        """Return the scores of a method, by default of the one that was asked for.

        Raises:
            UserError: if the file has no scores of that method.
        """
        name = method or self.method
        if name not in self.by_method:
            raise UserError(
                f"the scores have no '{name}'; they have {', '.join(sorted(self.by_method))}: "
                f"run depthprune score --method {name}"
            )
        return self.by_method[name]

    def check_model(self, identity: str) -> None:
        """Check that the scores were computed on the model with this identity.

        Raises:
            UserError: if the scores are those of another model.
        """
        check_same_model(self.model, identity, "scores are those", "score")

    def to_dict(self) -> dict[str, Any]:
        """Return the file's content."""
        return {
            "format": FORMAT,
            "model": self.model,
            "stack": self.stack,
            "depth": self.depth,
            "metric": self.method,  # the format's keys are older than the word "method"
            "token": self.token,
            "metrics": {
                name: {"layers": list(scores.layers)}
                | ({"windows": {str(n): list(w) for n, w in scores.windows.items()}} if scores.windows else {})
                for name, scores in self.by_method.items()
            },
            "calibration": self.calibration,
            "environment": self.environment,
        }


def check_token(token: str) -> None:
    """Check that a word says what stands for a sequence.

    Raises:
        UserError: if it is none of `TOKENS`.
    """
    if token not in TOKENS:
        raise UserError(f"there is no token '{token}'; it is 'first', 'last' or 'mean'")


def token_words(token: str) -> str:
    """Say what stands for a sequence.

    >>> token_words("first"), token_words("mean")
    ('first token', 'mean of the tokens')
    """
    return "mean of the tokens" if token == "mean" else f"{token} token"


def check_same_model(model: Mapping[str, Any], identity: str, what: str, command: str) -> None:
    """Check that a file is about the model at hand.

    Raises:
        UserError: if the file is about another model; the message says how to make one for this model.
    """
    if model["identity"] != identity:
        raise UserError(
            f"the {what} of another model, '{model['name']}' ({model['identity'][:19]}…), and not of this one "
            f"({identity[:19]}…); run depthprune {command} on it"
        )


def read_scores(path: Path | str) -> Scores:
    """Read a score file.

    Raises:
        LoadError: if the file does not exist or is not a score file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadError(f"the scores '{path}' cannot be read ({error.strerror}); run depthprune score") from None
    except ValueError:
        raise LoadError(f"'{path}' is not a score file; run depthprune score MODEL --output {path}") from None
    try:
        return _parse(content)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise LoadError(f"'{path}' is not a score file ({FORMAT}); run depthprune score MODEL --output FILE") from None


def _parse(content: Any) -> Scores:
    depth = content["depth"]
    if content["format"] != FORMAT or not isinstance(depth, int) or content["metric"] not in content["metrics"]:
        raise ValueError
    by_method = {}
    for name, entry in content["metrics"].items():
        layers = tuple(map(float, entry["layers"]))
        windows = {int(n): tuple(map(float, w)) for n, w in entry.get("windows", {}).items()}
        if len(layers) != depth or any(len(w) != depth - n + 1 for n, w in windows.items()):
            raise ValueError
        by_method[name] = LayerScores(layers, windows)
    model, calibration = dict(content["model"]), dict(content["calibration"])
    if not isinstance(model["identity"], str) or not isinstance(model["name"], str):
        raise ValueError
    return Scores(
        model,
        str(content["stack"]),
        depth,
        str(content["metric"]),
        by_method,
        calibration,
        str(content["token"]),
        dict(content["environment"]),
    )


@dataclass(frozen=True)
class ScoringMethod:
    """A named way to score layers.

    Args:
        name: what the command calls it.
        function: computes the scores; its arguments depend on `needs`.
        needs: `pass` (from the sums of one forward pass), `objective` (a cost with layers dropped), `gradient` (a loss
            and its gradient), `weights` (the model only).
        paper: address of the publication it comes from.
        selects: how its strategy selects layers: `lowest` or `window`.
    """

    name: str
    function: Callable[..., LayerScores]
    needs: str
    paper: str
    selects: str = "lowest"

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return first_line(self.function)


registry: Registry[ScoringMethod] = Registry("score", "depthprune.scores.methods", ScoringMethod)


def scoring_method(name: str, *, needs: str, paper: str, selects: str = "lowest") -> Callable[[Callable], Callable]:
    """Register a scoring method; the function itself is returned unchanged."""

    def register(function: Callable) -> Callable:
        registry.add(name, ScoringMethod(name, function, needs, paper, selects))
        return function

    return register
