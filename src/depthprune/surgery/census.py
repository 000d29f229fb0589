"""Which architectures the census covers, and with which version of transformers. No torch.

`census.json` is written by `python -m tests.census --report docs/architectures.md`. A model type counts as covered if
the census cut it, or refused it with a reason; the page lists the outcome for each.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any


def covered_types() -> frozenset[str]:
    """Return the model types that the census covers.

    >>> "bert" in covered_types()
    True
    """
    return frozenset(_read()["types"])


def covered_version() -> str:
    """Return the version of transformers that the census was run with."""
    return _read()["transformers"]


@cache
def _read() -> dict[str, Any]:
    return json.loads(files("depthprune.surgery").joinpath("census.json").read_text(encoding="utf-8"))
