"""Where trainings keep what outlives them. No torch."""

from pathlib import Path


class Place:
    """Where the trainings of one run keep what outlives them, counted in the order in which they happen.

    Args:
        name: of the run, for services that training is reported to.
        logs: folder for what is written about the first one; the second has `logs-2` beside it.
    """

    def __init__(self, name: str, logs: Path):
        self._name, self._logs, self._number = name, logs, 0

    def next(self) -> None:
        """Go on to the next training."""
        self._number += 1

    @property
    def name(self) -> str:
        """What the training is called."""
        return self._name + self._end

    @property
    def logs(self) -> Path:
        """The folder for what is written about it."""
        return self._logs.with_name(self._logs.name + self._end)

    @property
    def _end(self) -> str:
        return f"-{self._number}" if self._number > 1 else ""
