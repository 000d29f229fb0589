"""What a run answered, row by row, beside its record: from it two runs are compared on the same rows. No torch.

`predictions.json` has, for each evaluation split, by the prefix of its metrics' names, the expected and the predicted
answers in the order of the data, as metrics take them: `{"": {"expected": [1, 0, …], "predicted": [1, 1, …]}}`. For a
language model these are, for each block of text, the number of tokens and their loss. Numbers that are not whole are
kept to six digits. Older runs have none.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from depthprune.result_file import replace_json

FILE = "predictions.json"

Predictions = Mapping[str, Mapping[str, Sequence[float]]]


def write_predictions(folder: Path, predictions: Predictions) -> None:
    """Write the predictions of a run into its folder, whole or not at all."""
    rounded = {
        prefix: {name: [_short(value) for value in values] for name, values in split.items()}
        for prefix, split in predictions.items()
    }
    replace_json(folder / FILE, rounded, compact=True)


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")


def read_predictions(folder: Path) -> Predictions | None:
    """Return the predictions of a run, or None where it has none that can be read."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        sizes = {len(split["expected"]) - len(split["predicted"]) for split in content.values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return content if sizes == {0} else None
