"""Models and data from the Hub, through the library's own client and a stand-in for its server."""

import json
import os
import subprocess
import sys

import pytest
from datasets import Dataset

from stand_in_hub import COMMIT, serving
from tiny_models import tiny_checkpoint, words

MODEL = "google-bert/bert-base-cased"


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The command, in a process that has a Hub of its own: a tiny BERT, and 48 rows of one of GLUE's tasks."""
    folder = tmp_path_factory.mktemp("hub")
    tiny_checkpoint(folder / "root" / "models" / MODEL)
    glue = folder / "root" / "datasets" / "nyu-mll" / "glue"
    (glue / "rte").mkdir(parents=True)
    texts, card = words(96 * 5, line=5).splitlines(), ["---", "configs:", "- config_name: rte", "  data_files:"]
    for split, first, last in ("train", 0, 32), ("validation", 32, 48):
        columns = {"sentence1": texts[first:last], "sentence2": texts[48 + first : 48 + last]}
        labels = {"label": [number % 2 for number in range(first, last)]}
        Dataset.from_dict(columns | labels).to_parquet(glue / "rte" / f"{split}-0.parquet")
        card += [f"  - split: {split}", f"    path: rte/{split}-0.parquet"]
    (glue / "README.md").write_text("\n".join([*card, "---", ""]))

    with serving(folder / "root") as address:

        def run(*words: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
            where = {"HF_ENDPOINT": address, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": str(int(offline))}
            return subprocess.run(
                [sys.executable, "-m", "depthprune", *words],
                cwd=folder, env={**os.environ, **where}, capture_output=True, text=True, check=False,
            )  # fmt: skip

        run.folder = folder
        yield run


def test_a_run_takes_model_and_data_from_the_hub_and_later_from_the_cache(command):
    asked = ("run", MODEL, "--task", "rte", "--strategy", "top", "--count", "1")
    asked += ("--epochs", "1", "--max-length", "16", "--no-profile", "--precision", "float32")

    first, second = command(*asked), command(*asked, offline=True)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "done now" in first.stdout and "done now" not in second.stdout
    records = [json.loads(file.read_text()) for file in (command.folder / "runs").glob("*/record.json")]
    assert [record["spec"]["model"] for record in records] == [f"hub:{MODEL}@{COMMIT}"] * 2
    assert {record["outcome"]["metrics"]["accuracy"]["examples"] for record in records} == {16}


def test_a_model_that_the_hub_does_not_have_is_named(command):
    done = command("run", "google-bert/bert-bsae-cased", "--task", "rte", "--strategy", "top", "--count", "1")

    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "the Hub has no model 'google-bert/bert-bsae-cased', and there is no such folder here; check the name"
    )
