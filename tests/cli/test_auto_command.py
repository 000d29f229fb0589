"""`depthprune auto` over runs that the store has already."""

import pytest

from tiny_models import tiny_checkpoint


@pytest.fixture
def asked(rows_csv, tmp_path):
    """A model of two layers and a task, whose runs all fit in seconds."""
    model = tiny_checkpoint(tmp_path / "bert", num_layers=2)
    data = ["--dataset", rows_csv, "--text-columns", "text", "--label-column", "kind"]
    return [model, "--task", "custom", *data, "--epochs", 0, "--max-length", 8, "--no-profile", "--quiet"]


def test_quiet_and_untimed_it_says_the_answer_alone(asked, command, tmp_path):
    assert command("run", *asked, "--layers", 1).err == ""

    answer = command("auto", *asked, "--max-loss", "100%", "--strategy", "top")

    assert (answer.status, answer.err) == (0, "")
    assert answer.out.startswith("answer: drop layers 1 of 2 (top)\n  score: accuracy ")
    assert "speed:" not in answer.out and "nan" not in answer.out
    assert (tmp_path / answer.out.split("checkpoint: ")[1].splitlines()[0] / "model.safetensors").is_file()


@pytest.mark.parametrize("bound", ["--speedup", "--max-latency-ms"])
def test_a_bound_on_latency_needs_it_measured(bound, asked, command):
    answer = command("auto", *asked, bound, 2)

    assert answer.status == 2
    assert answer.err == (
        f"depthprune: {bound} needs latencies, which --no-profile does not measure; leave one of them out\n"
    )
