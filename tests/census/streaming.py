"""Cut checkpoints as bytes with the proof in this process, which has torch and transformers already.

The process of its own, and what becomes of it, is the business of `tests/checkpoints/test_stream.py`; starting one for
each of a thousand stacks would take longer than all the rest.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from depthprune.checkpoints import stream
from depthprune.checkpoints.drop import drop_checkpoint
from depthprune.checkpoints.proof import child as prove
from depthprune.errors import CannotDropError, UserError
from depthprune.plan import LayerPlan

ANSWERS = {"describe": prove.describe, "prove": prove.prove, "logits": prove.logits}


class ProverHere:
    """What `depthprune.checkpoints.proof.client.Prover` does, without a child process."""

    def __enter__(self) -> "ProverHere":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, request: dict[str, Any]) -> None:
        """Keep a request."""
        self._request = request

    def answer(self) -> dict[str, Any]:
        """Return the answer to the last request."""
        try:
            return ANSWERS[self._request["do"]](self._request)
        except UserError as error:
            raise CannotDropError(str(error)) from error
        except Exception as error:  # a child that dies is reported so
            raise CannotDropError(f"the proof failed: {type(error).__name__}: {error}") from error


def cut_as_bytes(source: Path, target: Path, plans: Mapping[str, LayerPlan]) -> None:
    """Write to `target` what `plans` leave of the checkpoint in `source`."""
    with patch.object(stream, "Prover", ProverHere):
        drop_checkpoint(source, target, plans)
