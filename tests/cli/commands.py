"""Run the command in this process, as a person types it."""

import sys
from dataclasses import dataclass

import pytest

from depthprune.cli.main import main


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str


class Command:
    """Calls `depthprune` with arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> Answer:
        self._monkeypatch.setattr(sys, "argv", ["depthprune", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = self._capsys.readouterr()
        return Answer(int(stop.value.code or 0), captured.out, captured.err)
