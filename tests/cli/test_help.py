"""Help and usage errors, as a person meets them."""

import pytest

from depthprune.cli.help import EXAMPLES, SHORT, settings
from depthprune.cli.main import COMMANDS


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_the_bare_command_shows_help(command, arguments):
    answer = command(*arguments)

    assert answer.status == 0 and not answer.err
    lines = [line.split()[0] for line in answer.out.split("Commands:")[1].splitlines() if line.startswith("  ")]
    assert lines[:4] == ["auto", "run", "search", "score"] and set(COMMANDS) <= set(lines)
    assert "..." not in answer.out.split("Commands:")[1], "every summary is whole"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_grouped_in_plain_words_with_an_example(command, name):
    answer = command(name, "-h")

    assert answer.status == 0 and answer.out == command(name, "--help").out
    for jargon in ("<str>", "<int>", "<float>", "<path>", "list[", "INTEGER", "RANGE", "x>=", "{MODEL}"):
        assert jargon not in answer.out
    example = answer.out.split("Example:\n")[1].strip()
    assert example.startswith(f"depthprune {name}") and len(example.splitlines()) == 1
    assert max(map(len, answer.out.split("Example:")[0].splitlines())) <= settings()["max_content_width"]


def test_options_are_in_groups(command):
    out = command("auto", "-h").out
    groups = [line[:-1] for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert groups == ["Arguments", "Required", "Layers", "Data", "Bounds", "Training", "Running", "Output", "Trust",
                      "Options", "Example"]  # fmt: skip
    assert "--epochs NUMBER" in out.split("Training:")[1].split("Running:")[0]
    assert "--batch-size" in command("score", "-h").out.split("Running:")[1], "a forward pass trains nothing"


def test_examples_have_options_that_exist(command):
    for name in COMMANDS:
        known = command(name, "-h").out.split("Example:")[0]
        given = [word for word in EXAMPLES[name].split() if word.startswith("--")]
        assert [option for option in given if option not in known] == []
    assert set(COMMANDS) <= set(SHORT)


@pytest.mark.parametrize("columns, width", [("140", 140), ("20", 60)])
def test_help_takes_the_width_of_the_terminal(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert settings()["max_content_width"] == width


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("drop",), "Missing argument 'MODEL'; try depthprune drop --help"),
        (("drop", "m", "--layer", "1"), "try depthprune drop --help"),
        (("drop", "m", "--count"), "try depthprune drop --help"),
        (("run", "m", "--count", "two", "--task", "mrpc"), "try depthprune run --help"),
        (("dorp",), "No such command 'dorp'"),
        (("--loud",), "try depthprune --help"),
    ],
)
def test_a_usage_error_points_to_the_help_of_its_command(command, arguments, message):
    answer = command(*arguments)

    assert answer.status == 2 and message in answer.err and answer.err.count("\n") == 1 and not answer.out
