"""The result of a search, as a value and a file. No torch."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from depthprune.errors import LoadError, PlanError
from depthprune.plan import LayerPlan
from depthprune.scores.base import check_same_model

FORMAT = "depthprune-search/1"


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Args:
        model: `name`, `identity`, `class`, `weights`, as in a score file.
        stack: name of the stack.
        depth: its layers.
        method: `greedy`, …
        objective: its name and unit.
        plans: number of layers → dropped layers and value; lower is better.
        full: the value of the full model.
        calibration: the data that was used.
        settings: seed, protected layers and so on.
        trials: number of evaluated plans; `seconds`: time for them, including resumed runs.
    """

    model: dict[str, Any]
    stack: str
    depth: int
    method: str
    objective: dict[str, str]
    plans: dict[int, tuple[tuple[int, ...], float]]
    full: float
    calibration: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    trials: int = 0
    seconds: float = 0.0
    environment: dict[str, Any] = field(default_factory=dict)

    def plan(self, count: int) -> LayerPlan:
        """Return the best plan that drops `count` layers.

        Raises:
            PlanError: if the search has no plan for that count.
        """
        if count not in self.plans:
            if not 0 < count < self.depth:
                raise PlanError(f"cannot drop {count} of {self.depth} layers; --count is 1 to {self.depth - 1}")
            known = ", ".join(map(str, sorted(self.plans)))
            raise PlanError(f"the search has no plan for --count {count}; it has {known}: run depthprune search again")
        return LayerPlan(self.depth, self.plans[count][0])

    def order(self, count: int) -> tuple[int, ...]:
        """Return the layers of a plan in the order of a gradual drop: as the smaller plans drop them.

        Of layers that the same plan adds, the one nearest the output is dropped first.
        """
        order: list[int] = []
        dropped = set(self.plan(count).dropped)
        for smaller in sorted(number for number in self.plans if number < count):
            order += sorted(dropped.intersection(self.plans[smaller][0]).difference(order), reverse=True)
        return (*order, *sorted(dropped.difference(order), reverse=True))

    def check_model(self, identity: str) -> None:
        """Check that the search was run on the model with this identity.

        Raises:
            UserError: if it was run on another model.
        """
        check_same_model(self.model, identity, "search is", "search")

    def to_dict(self) -> dict[str, Any]:
        """Return the file's content."""
        return {
            "format": FORMAT,
            "model": self.model,
            "stack": self.stack,
            "depth": self.depth,
            "method": self.method,
            "objective": self.objective,
            "full": self.full,
            "plans": {str(k): {"dropped": list(dropped), "value": v} for k, (dropped, v) in self.plans.items()},
            "calibration": self.calibration,
            "settings": self.settings,
            "trials": self.trials,
            "seconds": self.seconds,
            "environment": self.environment,
        }


def read_search_result(path: Path | str) -> SearchResult:
    """Read the result of a search.

    Raises:
        LoadError: if the file does not exist or is not the result of a search.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError
        plans = {int(k): (tuple(entry["dropped"]), float(entry["value"])) for k, entry in content["plans"].items()}
        names = ("model", "stack", "depth", "method", "objective", "full", "calibration")
        more = ("settings", "trials", "seconds", "environment")
        return SearchResult(plans=plans, **{name: content[name] for name in (*names, *more)})
    except OSError as error:
        raise LoadError(f"the search '{path}' cannot be read ({error.strerror}); run depthprune search") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LoadError(
            f"'{path}' is not the file of a search ({FORMAT}); run depthprune search --output FILE"
        ) from None
