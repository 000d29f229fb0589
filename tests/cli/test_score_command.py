"""`depthprune score` and `depthprune search`, and `drop` by what they write."""

import json

import pytest

from tiny_models import tiny_checkpoint, tiny_decoder, words


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    tiny_decoder(folder / "model", 5)
    tiny_checkpoint(folder / "other", "bert", "mlm", 5)
    (folder / "words.txt").write_text(words(3000))
    return folder


SAMPLE = ("--samples", 8, "--length", 24)


def test_scores_are_shown_written_drawn_and_dropped_by(command, here, tmp_path):
    file, picture = tmp_path / "s.json", tmp_path / "s.svg"
    more = ("--output", file, "--figure", picture, "--plot", *SAMPLE)
    answer = command("score", here / "model", "--method", "angular", "--data", here / "words.txt", *more)
    assert answer.status == 0, answer.err
    assert "block-influence" in answer.out and "best window" in answer.out and "◆" in answer.out
    assert picture.read_text().startswith("<?xml") and "first layer of the window" in picture.read_text()
    scores = json.loads(file.read_text())
    assert len(scores["metrics"]["angular"]["windows"]["2"]) == 4
    answer = command("drop", here / "model", "--scores", file, "--count", 2, "--output", tmp_path / "cut")
    assert answer.status == 0, answer.err
    window = scores["metrics"]["angular"]["windows"]["2"]
    start = window.index(min(window))
    history = json.loads((tmp_path / "cut" / "depthprune.json").read_text())["cuts"][0]
    assert history["stacks"]["layers"]["dropped"] == [start, start + 1]
    assert history["strategy"] == "angular" and len(history["scores"]["layers"]) == 5
    # Another K and another metric come from the same file.
    answer = command("drop", here / "model", "--scores", file, "--strategy", "block-influence", "--count", 3,
                     "--protect", "0,-1", "--dry-run")  # fmt: skip
    assert answer.status == 0 and "dropped layers 1-3 of 5" in answer.out


def test_a_search_is_shown_written_drawn_and_dropped_by(command, here, tmp_path):
    file, picture = tmp_path / "f.json", tmp_path / "f.png"
    given = ("search", here / "model", "--data", here / "words.txt", *SAMPLE)
    answer = command(*given, "--count", "1-2", "--output", file, "--figure", picture)
    assert answer.status == 0, answer.err
    found = json.loads(file.read_text())
    assert found["trials"] == 1 + 5 + 4 and picture.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "f.trace.jsonl").is_file()
    answer = command("drop", here / "model", "--search", file, "--count", 2, "--output", tmp_path / "cut")
    assert answer.status == 0, answer.err
    history = json.loads((tmp_path / "cut" / "depthprune.json").read_text())["cuts"][0]
    assert history["stacks"]["layers"]["dropped"] == found["plans"]["2"]["dropped"]
    assert history["strategy"] == "greedy search (loss)"
    answer = command(*given, "--count", "1-2", "--seed", 7, "--output", file)
    assert answer.status == 2 and "is the trace of another search" in answer.err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("score", "MODEL", "--method", "angualr", "--data", "TEXT"), "did you mean 'angular'"),
        (("score", "MODEL", "--method", "angular", "--data", "nowhere.txt"), "nowhere.txt"),
        (("score", "MODEL", "--method", "angular", "--data", "TEXT", "--cache-memory", "lots"), "an amount of memory"),
        (("score", "MODEL", "--method", "angular", "--data", "TEXT", "--figure", "a.gif"), "end it in .svg or .png"),
        (("score", "MODEL", "--method", "angular", "--data", "TEXT", "--output", "no/s.json"), "no folder 'no'"),
        (("score", "OTHER", "--method", "loss", "--objective", "embedding", "--data", "TEXT"), "no head"),
        (("search", "MODEL", "--method", "gredy", "--data", "TEXT", "--count", "1", "--output", "f.json"), "'greedy'"),
        (("search", "MODEL", "--data", "TEXT", "--count", "x", "--output", "f.json"), "is not how many layers to drop"),
        (("drop", "MODEL", "--strategy", "angular", "--count", "1", "--output", "o"), "run depthprune score MODEL"),
        (("drop", "MODEL", "--strategy", "greedy", "--count", "1", "--output", "o"), "run depthprune search MODEL"),
        (("drop", "MODEL", "--threshold", "0.9", "--layers", "1", "--output", "o"), "give --scores FILE"),
        (("drop", "MODEL", "--scores", "none.json", "--count", "1", "--output", "o"), "cannot be read"),
        (("drop", "MODEL", "--scores", "SCORES", "--layers", "1", "--output", "o"), "exclude each other"),
        (("drop", "MODEL", "--scores", "SCORES", "--output", "o"), "need --count"),
        (("drop", "MODEL", "--scores", "SCORES", "--threshold", "0.9999", "--output", "o"), "the mean cosines"),
        (("drop", "OTHER", "--scores", "SCORES", "--count", "1", "--output", "o"), "those of another model"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(arguments, message, command, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scores = here / "scores.json"
    if not scores.exists():
        command("score", here / "model", "--method", "contribution", "--data", here / "words.txt", *SAMPLE,
                "--output", scores)  # fmt: skip
    places = {"MODEL": here / "model", "OTHER": here / "other", "TEXT": here / "words.txt", "SCORES": scores}
    answer = command(*(places.get(argument, argument) for argument in arguments))
    said = [
        line for line in answer.err.splitlines() if line != "loading the model"
    ]  # progress, where there is no terminal
    assert answer.status == 2 and len(said) == 1, answer.err
    assert message in said[0]
    assert list(tmp_path.iterdir()) == []
