"""Where trainings keep what outlives them. No torch."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


class Place:
    """Where the trainings of one run keep what outlives them, counted in the order in which they happen.

    Args:
        name: of the run, for services that training is reported to.
        logs: folder for what is written about the first one; the second has `logs-2` beside it.
        states: folder in which each has a folder for its saved state; None for no saving.
        about: which run it is, as JSON values: the state of another one is not resumed.
    """

    def __init__(self, name: str, logs: Path, states: Path | None = None, about: Mapping[str, Any] | None = None):
        self._name, self._logs, self._states, self._number = name, logs, states, 0
        self.about: dict[str, Any] = dict(about or {})
        self.precisions: list[str] = []  # of the trainings so far

    def next(self, precision: str) -> None:
        """Go on to the next training, which is in a precision."""
        self._number += 1
        self.precisions.append(precision)

    @property
    def name(self) -> str:
        """What the training is called."""
        return self._name + self._end

    @property
    def logs(self) -> Path:
        """The folder for what is written about it."""
        return self._logs.with_name(self._logs.name + self._end)

    @property
    def state(self) -> Path | None:
        """The folder for its saved state."""
        return None if self._states is None else self._states / str(self._number)

    @property
    def all_states(self) -> list[Path]:
        """The folders with a saved state of a training, the last training first."""
        found = self._states.iterdir() if self._states is not None and self._states.is_dir() else ()
        return sorted((each for each in found if each.name.isdigit()), key=lambda each: -int(each.name))

    def remove_states(self) -> None:
        """Remove the saved states of all trainings, which are done."""
        for folder in self.all_states:
            shutil.rmtree(folder, ignore_errors=True)
        if self._states is not None:
            with suppress(OSError):  # it does not exist, or holds something else
                self._states.rmdir()

    @property
    def _end(self) -> str:
        return f"-{self._number}" if self._number > 1 else ""
