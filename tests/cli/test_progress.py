"""How far a command is, on standard error."""

import io
import sys

import pytest
from rich.console import Console

from depthprune.cli import progress as module
from depthprune.cli.progress import Lines, progress


def test_without_a_terminal_a_stage_says_when_it_begins_and_then_now_and_then(capsys):
    clock = iter(range(0, 1000, 4))  # four seconds a step
    show = Lines(every=10, clock=lambda: next(clock))
    for done in range(1, 11):
        show("training", done, 10)

    said = capsys.readouterr()
    assert said.out == "", "results alone go there"
    assert said.err.splitlines() == [
        "training 1/10",
        "training 4/10, about 24 s left",
        "training 7/10, about 12 s left",
        "training 10/10",
    ]


def test_a_new_stage_is_said_at_once_and_timed_anew(capsys):
    with progress() as show:
        show("one", 1, 2)
        show("one", 2, 2)
        show("two", 0, 1)
        show("three", 1, 200)

    assert capsys.readouterr().err.splitlines() == ["one 1/2", "two", "three 1/200"]


def test_a_stage_without_steps_says_how_long_it_has_lasted(capsys):
    clock = iter((0.0, 40.0))
    show = Lines(every=30, clock=lambda: next(clock))
    show("timing", 0, 1)
    show("timing", 0, 1)

    assert capsys.readouterr().err.splitlines() == ["timing", "timing, 40 s so far"]


def test_quiet_says_nothing(capsys):
    with progress(quiet=True) as show:
        show("training", 1, 2)
        show.say("a line")

    assert capsys.readouterr() == ("", "")


@pytest.fixture
def terminal(monkeypatch) -> io.StringIO:
    """What a terminal would show."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100, _environ={})
    monkeypatch.setattr(module, "messages", console)
    return written


def test_in_a_terminal_there_is_a_bar_and_results_keep_their_place(terminal, capsys):
    with progress() as show:
        show("pruned model: training", 3, 10)
        sys.stdout.write("a result\n")
        show("pruned model: scoring", 1, 1)
        show.say("a line that stays")

    assert capsys.readouterr().out == "a result\n"
    assert "pruned model: scoring" in terminal.getvalue() and "a line that stays" in terminal.getvalue()
    assert "a result" not in terminal.getvalue()
