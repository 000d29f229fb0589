"""The client of the proof: it asks the child process, which imports torch and transformers so that this process need
not.

The child (`python -m depthprune.checkpoints.proof`) starts at once, so that its imports run while the headers are read
and the bytes are copied. It reads one request per line and answers each with a line of JSON. It ends when its standard
input is closed.
"""

import json
import os
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any

from depthprune.errors import CannotDropError

SOURCES_FILE = "depthprune-sources.json"  # with the headers to prove: new name → name of the copied tensor


def program(parent: int) -> list[str]:
    """Return the command that starts the child process, which ends when the process `parent` does."""
    return [sys.executable, "-m", "depthprune.checkpoints.proof", str(parent)]


class Prover:
    """The child process; use it as a context."""

    def __init__(self) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        # A file, since a pipe that is not read could fill up.
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._child = subprocess.Popen(
            program(os.getpid()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=environment,
        )

    def __enter__(self) -> "Prover":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._child.kill()
        self._child.communicate()
        self._said.close()

    def ask(self, request: dict[str, Any]) -> None:
        """Send a request; the answer is fetched with `answer`."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass  # `answer` reports why

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to the last request.

        Raises:
            CannotDropError: if the child process refuses the cut or died; the message says why.
        """
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._child.wait()
            self._said.seek(0)
            said = [line for line in self._said.read().splitlines() if line.strip()]
            reason = said[-1] if said else f"it ended with status {self._child.returncode} without a message"
            raise CannotDropError(f"the proof failed: {reason}; nothing was saved")
        answer = json.loads(line)
        if "refused" in answer:
            raise CannotDropError(answer["refused"])
        return answer
