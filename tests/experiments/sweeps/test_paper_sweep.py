"""The sweep that repeats the paper, end to end, with tiny models of its four architectures in the place of the real."""

from pathlib import Path

import pytest
import yaml
from datasets import Dataset

import depthprune
from depthprune.experiments.store.store import Store
from depthprune.experiments.sweeps.choices import stored_scorer
from depthprune.experiments.sweeps.expansion import combined, expand
from depthprune.experiments.sweeps.grid import parse_sweep, read_sweep
from depthprune.experiments.sweeps.rows import remember
from depthprune.experiments.sweeps.runner import Work, do
from depthprune.reporting.paper.numbers import MODELS
from depthprune.reporting.paper.numbers import TASKS as PAPERS_TASKS
from tiny_models import tiny_checkpoint, words

FILES = sorted((Path(__file__).parents[3] / "examples" / "paper").glob("*.yaml"))
KINDS = {"bert": 12, "roberta": 12, "xlnet": 12, "distilbert": 6}


def test_it_has_the_models_tasks_and_counts_of_the_papers_tables():
    sweeps = [read_sweep(file) for file in FILES]
    assert {name for sweep in sweeps for name in sweep.names.values()} == set(MODELS)
    for sweep in sweeps:
        assert set(sweep.tasks) == set(PAPERS_TASKS)
        for name in sweep.names.values():
            assert {0, *sweep.counts} == set(MODELS[name].top)
        (heal,) = sweep.heal.values()
        assert (heal.num_epochs, heal.batch_size, heal.learning_rate) == (3, 32, 2e-5)


@pytest.fixture
def glue(tmp_path) -> str:
    """Two of GLUE's tasks, a few rows each."""
    texts = words(2 * 48 * 5, line=5).splitlines()
    rows = [{"sentence1": a, "sentence2": b} for a, b in zip(texts[::2], texts[1::2], strict=True)]
    card = ["---", "configs:"]
    for task, label in (("rte", lambda i: i % 2), ("stsb", lambda i: i % 11 / 2)):
        labelled = Dataset.from_list([row | {"label": label(i)} for i, row in enumerate(rows)])
        (tmp_path / "glue" / task).mkdir(parents=True)
        card += [f"- config_name: {task}", "  data_files:"]
        for split, some in (("train", range(32)), ("validation", range(32, 48))):
            labelled.select(some).to_parquet(tmp_path / "glue" / task / f"{split}-0.parquet")
            card += [f"  - split: {split}", f"    path: {task}/{split}-0.parquet"]
    (tmp_path / "glue" / "README.md").write_text("\n".join([*card, "---", ""]))
    return str(tmp_path / "glue")


def test_it_runs_from_end_to_end_and_the_papers_numbers_stand_beside_those_of_the_runs(glue, tmp_path):
    models = {}
    for kind, depth in KINDS.items():
        name = next(name for name, model in MODELS.items() if model.model_type == kind)
        models[name] = str(tiny_checkpoint(tmp_path / name, kind, "base", depth))
    expansions, store = [], tmp_path / "runs"
    for file in FILES:
        content = yaml.safe_load(file.read_text())
        content["models"] = {name: models[name] for name in content["models"]}
        content |= {"tasks": ["rte", "stsb"], "dataset": glue, "max_length": 16}
        content |= {"strategies": ["top", "contribution"], "counts": content["counts"][-1:]}
        content["heal"] |= {"num_epochs": 0.5, "batch_size": 16}
        expansions.append(expand(parse_sweep(content), stored_scorer(store, "cpu", take=True)))
        remember(expansions[-1], Store(store))
    jobs = combined(expansions).jobs
    assert {do(Work(job, str(store), "cpu", profile=False))[1] for job in jobs.values()} == {"done"}
    assert len(jobs) >= 4 * 2 * 2
    page = depthprune.report(store, claims=True)
    for name in models:
        assert name in page
    bert, distilbert = MODELS["bert-base-cased"], MODELS["distilbert-base-uncased"]
    for told in (bert.top[0], bert.top[6], distilbert.top[3]):
        for task in ("rte", "stsb"):
            assert f"{told[PAPERS_TASKS.index(task)]:.2f}" in page, "the paper's number beside ours"
