"""What is shown while a run goes on, where there is no terminal."""

import re

from depthprune.cli import display


def test_plain_progress_says_a_stage_at_every_fifth_with_the_time_left(capsys, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(display.time, "monotonic", lambda: next(clock))  # a second a step
    with display.progress() as show:
        for done in range(1, 11):
            show("train", done, 10)

    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "train 1/10",
        "train 2/10, 8 s left",
        "train 4/10, 6 s left",
        "train 6/10, 4 s left",
        "train 8/10, 2 s left",
        "train 10/10",
    ]


def test_a_stage_that_starts_anew_under_another_name_is_timed_anew(capsys):
    with display.progress() as show:
        show("one", 1, 2)
        show("two", 1, 2)

    assert re.findall(r"^\w+ 1/2$", capsys.readouterr().out, flags=re.MULTILINE) == ["one 1/2", "two 1/2"]
