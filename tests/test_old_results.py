"""What earlier versions wrote is read, keeps its name and says the same: records, analyses, sweeps, scores, searches.

The records, analyses and sweeps are those of docs/results. Score and search files are written out here as the first
versions wrote them; never regenerate them.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from depthprune.experiments.choosing.choose import score_file
from depthprune.experiments.choosing.task_search import search_file
from depthprune.experiments.store.records import measured
from depthprune.experiments.store.store import Store
from depthprune.experiments.sweeps.grid import read_sweep
from depthprune.plan import LayerPlan
from depthprune.reporting.results import read_results
from depthprune.scores import read_scores
from depthprune.sources import ModelSource, locate
from depthprune.specs import DropSpec, EvalSpec, RunSpec, run_spec_of
from depthprune.strategies import choose, removal_order
from depthprune.strategies.scored import plan_scored
from depthprune.strategies.search_result import read_search_result
from depthprune.tasks import Task, TaskData
from tiny_models import tiny_checkpoint

RESULTS = Path(__file__).parents[1] / "docs" / "results"
OLDEST = RESULTS / "minilm"


@cache
def old_records() -> dict[str, dict[str, Any]]:
    """Digest → record."""
    files = sorted(OLDEST.glob("*/record.json"))
    found = {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}
    assert len(found) >= 40
    return found


@pytest.fixture(scope="module")
def store() -> Store:
    """The oldest records, with their analyses."""
    return Store(OLDEST)


def test_every_record_keeps_its_digest_and_all_that_its_spec_says():
    for digest, record in old_records().items():
        spec = run_spec_of(record["spec"])
        assert spec.digest() == digest
        again = spec.to_dict()
        assert run_spec_of(again) == spec
        for part in ("evaluation", "drop", "heal"):
            assert record["spec"][part].items() <= again[part].items(), digest


def test_every_record_is_a_finished_run_of_its_store_and_a_row_of_the_report(store):
    for digest, record in old_records().items():
        assert store.record(digest) == record
    results = read_results(store.root)
    assert results.foreign == ()
    rows = {run.digest: run for run in results.runs}
    assert rows.keys() == old_records().keys()
    for digest, record in old_records().items():
        row, outcome = rows[digest], record["outcome"]
        assert row.score == measured(record).value == outcome["metrics"][outcome["primary"]]["value"]
        assert (row.depth, list(row.dropped)) == (outcome["plan"]["depth"], outcome["plan"]["dropped"])
        assert (row.primary, row.parameters) == (outcome["primary"], outcome["profile"]["parameters"])
        assert set(outcome["plan"]["strategies"]) <= set(row.strategies)


@pytest.mark.parametrize(
    ("folder", "runs", "counts", "analyses"),
    [("e5-small-12", 115, {0, 2, 4, 6, 8, 9}, 14), ("mpnet", 5, {0, 6}, 10), ("e5-small-12-mrpc", 4, {0, 4, 6}, 0)],
)
def test_a_store_of_a_twelve_layer_model_is_read_and_keeps_its_digests(folder, runs, counts, analyses):
    store = Store(RESULTS / folder)
    found = [file.parent.name for file in sorted(store.root.glob("*/record.json"))]
    assert len(found) == runs
    assert [run_spec_of(store.record(digest)["spec"]).digest() for digest in found] == found
    results = read_results(store.root)
    assert results.foreign == () and sorted(run.digest for run in results.runs) == found
    assert {len(run.dropped) for run in results.runs} == counts
    assert sorted({each.token for each in results.analyses}) == (["first", "mean"] if analyses else [])
    assert len(results.analyses) == analyses and all(each.covariance for each in results.analyses)


def test_every_analysis_is_read(store):
    files = sorted(file.name.partition("-")[0] for file in (OLDEST / "analyses").iterdir())
    assert sorted(each.kind for each in read_results(store.root).analyses) == files == ["probe", "similarity"]


def test_the_searches_of_the_oldest_store_stand_beside_what_healing_made_of_their_plans(store):
    from depthprune.reporting.tables.before_healing import before_healing_table

    rows = before_healing_table(read_results(store.root)).rows
    optimum = [row for row in rows if "exhaustive" in row[3]]
    assert [row[1:3] for row in optimum] == [(task, str(count)) for task in ("mrpc", "stsb") for count in (1, 2, 3)]
    assert [row[7] for row in optimum] == ["72.79", "–", "68.63", "82.65", "–", "38.99"]


@pytest.mark.parametrize(("file", "number"), [("sweep.yaml", 26), ("recipes.yaml", 7)])
def test_a_sweep_stands_for_the_runs_that_it_stood_for(file, number):
    sweep = read_sweep(OLDEST / file)
    specs = [run_spec_of(record["spec"]) for record in old_records().values()]
    data = {spec.evaluation.task: spec.evaluation.data for spec in specs}
    (model,) = {spec.model for spec in specs}
    found = set()
    for task in sweep.tasks:
        evaluation = EvalSpec(task, data[task], sweep.max_length)
        for heal in sweep.heal.values():
            found.add(RunSpec(model, evaluation, DropSpec(), heal.for_full(), 42).digest())
            for entry in sweep.strategies:
                for count in sweep.counts_for(6):
                    if entry.name == "contribution" or (entry.name == "symmetric" and count % 2):
                        continue
                    plan = choose(entry.name, 6, count)
                    order = removal_order(plan, entry.name) if heal.gradual else ()
                    found.add(RunSpec(model, evaluation, DropSpec(plan.dropped, order), heal, 42).digest())
    assert len(found & old_records().keys()) == number, "not all runs of the two sweeps were made"


SCORES = {
    "format": "depthprune-scores/1",
    "model": {"name": "bert", "identity": "sha256:aa", "class": "BertModel", "weights": "pre-trained"},
    "stack": "layers",
    "depth": 4,
    "metric": "contribution",
    "token": "first",
    "metrics": {
        "angular": {
            "layers": [0.4, 0.1, 0.2, 0.3],
            "windows": {"1": [0.4, 0.1, 0.2, 0.3], "2": [0.5, 0.3, 0.4], "3": [0.6, 0.5]},
        },
        "contribution": {"layers": [0.25, 0.5, 0.125, 0.75]},
    },
    "calibration": {"data": "mrpc", "fingerprint": "sha256:bb", "samples": 256},
    "environment": {"packages": {}},
}
SEARCH = {
    "format": "depthprune-search/1",
    "model": {"name": "bert", "identity": "sha256:aa", "class": "BertModel", "weights": "pre-trained"},
    "stack": "layers",
    "depth": 4,
    "method": "greedy",
    "objective": {"name": "kl", "unit": "nats"},
    "full": 0.0,
    "plans": {"1": {"dropped": [2], "value": 0.25}, "2": {"dropped": [1, 2], "value": 0.5}},
    "calibration": {"data": "mrpc", "fingerprint": "sha256:bb", "samples": 256},
    "settings": {"seed": 42, "protected": [], "race": False},
    "trials": 8,
    "seconds": 1.5,
    "environment": {"packages": {}},
}


def test_an_old_score_file_is_read_chooses_the_same_layers_and_is_written_as_it_was(tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps(SCORES))
    scores = read_scores(tmp_path / "scores.json")
    assert plan_scored(scores, count=2) == LayerPlan(4, (0, 2))
    assert plan_scored(scores, count=2, method="angular") == LayerPlan(4, (1, 2))
    assert scores.to_dict() == SCORES


def test_an_old_search_is_read_and_is_written_as_it_was(tmp_path):
    (tmp_path / "found.json").write_text(json.dumps(SEARCH))
    found = read_search_result(tmp_path / "found.json")
    assert found.plan(2) == LayerPlan(4, (1, 2)) and found.order(2) == (2, 1)
    assert found.to_dict() == SEARCH


def test_a_store_finds_the_scores_and_searches_that_it_has(tmp_path):
    from datasets import Dataset

    task = Task("custom", ("text",), "label", ("no", "yes"), ("accuracy",))
    rows = Dataset.from_list([{"text": f"ba {i}", "label": i % 2} for i in range(4)])
    data = TaskData(task, {"train": rows, "validation": rows})
    source = model_of_identity(tmp_path, "sha256:aa")
    given = (data, 64)
    assert score_file(tmp_path, source, "angular", *given) == score_file(tmp_path, source, "contribution", *given)
    assert score_file(tmp_path, source, "angular", *given).name == "5389dd41291b.json"
    assert score_file(tmp_path, source, "taylor", *given).name == "0965a98d5a85.json"
    assert search_file(tmp_path, source, "greedy", data, None, 64).name == "search-13f1a746644a.json"
    assert search_file(tmp_path, source, "greedy", data, "0", 64).name == "search-ff43c536ef79.json"


def model_of_identity(folder: Path, identity: str) -> ModelSource:
    source = locate(tiny_checkpoint(folder / "model", num_layers=2))
    source.__dict__["identity"] = identity  # a cached property: the weights are random
    return source
