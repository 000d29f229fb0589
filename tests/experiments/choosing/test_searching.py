"""Searches on models: states that are used again change nothing but the work."""

import dataclasses
import json
import subprocess
import sys
import time

import pytest

from depthprune.errors import UserError
from depthprune.experiments.choosing.calibrate import prepare
from depthprune.experiments.choosing.engine import Engine
from depthprune.experiments.choosing.objectives import choose_objective, opened_objective
from depthprune.experiments.choosing.search import SearchOptions, search_layers
from depthprune.plan import LayerPlan
from depthprune.sources import locate
from depthprune.strategies.evaluator import Evaluator, read_trace
from depthprune.strategies.search_result import read_search_result
from depthprune.strategies.searched import Space, methods
from depthprune.tasks.data.calibration import CalibrationOptions
from tiny_models import DEPTH, tiny_checkpoint, tiny_decoder, words

DEEP = 12


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text(words(4000))
    return str(file)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return str(tiny_decoder(tmp_path_factory.mktemp("decoder"), DEEP))


def sample(text, **more):
    return CalibrationOptions(text, **{"samples": 16, "length": 24, **more})


def greedy(decoder, text, engine, *, reuse=True, counts=(1, 2, 3, 4), race=False):
    """Return the plans, their values and the number of layers that ran."""
    prepared = prepare(locate(decoder), sample(text), engine, None)
    with opened_objective(prepared, choose_objective(prepared, "loss"), reuse=reuse) as opened:
        evaluator = Evaluator(opened, race=race)
        plans = methods.get("greedy").function(evaluator, Space(DEEP, counts))
        runs = opened.layer_runs
        return {k: (plan.dropped, evaluator.value(plan)) for k, plan in plans.items()}, runs


def test_reuse_gives_the_same_plans_and_values_in_little_more_than_half_the_layers(decoder, text):
    naive, naive_runs = greedy(decoder, text, Engine(batch_size=4), reuse=False)
    reused, runs = greedy(decoder, text, Engine(batch_size=4))
    assert reused == naive
    # The figure: prefix reuse and the winner's states kept as the next round's prefix.
    assert naive_runs == 4 * sum((12 - r) * (11 - r) for r in range(4))
    assert runs <= 0.55 * naive_runs


def test_little_memory_costs_layers_but_changes_no_value(decoder, text, tmp_path):
    wanted, least = greedy(decoder, text, Engine(batch_size=4))
    tight = Engine(batch_size=4, cache_memory=20_000, cache_dir=tmp_path)
    spilled, runs = greedy(decoder, text, tight)
    assert spilled == wanted and runs >= least
    without, most = greedy(decoder, text, dataclasses.replace(tight, cache_memory=0, cache_dir=None))
    assert without == wanted and most >= runs
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", methods.names())
@pytest.mark.parametrize("objective", ["loss", "kl", "perplexity"])
def test_every_search_gives_the_same_with_and_without_reuse(method, objective, decoder, text):
    def found(reuse):
        options = SearchOptions((1, 2), objective, reuse=reuse, generations=2)
        return search_layers(decoder, method, sample(text, samples=4), options, engine=Engine(batch_size=2)).plans

    assert found(True) == found(False)


@pytest.mark.parametrize("kind, head, objective", [("bert", "mlm", "kl"), ("xlnet", "base", "embedding"),
                                                   ("bert", "base", "embedding")])  # fmt: skip
def test_encoders_are_searched_alike(kind, head, objective, text, tmp_path):
    model = str(tiny_checkpoint(tmp_path / "m", kind, head, DEPTH))
    one, other = (
        search_layers(model, "greedy", sample(text), SearchOptions((1, 2), objective, reuse=reuse))
        for reuse in (True, False)
    )
    assert one.plans == other.plans and one.full == pytest.approx(0, abs=1e-6)


def test_the_metric_of_a_task_is_searched_without_training(shared_data, tmp_path):
    model = str(tiny_checkpoint(tmp_path / "m", "bert", "classification", DEPTH))
    data = CalibrationOptions("mrpc", str(shared_data / "glue"), samples=40, length=32)
    found = search_layers(model, "greedy", data, SearchOptions((1,), "metric"))
    assert found.objective == {"name": "metric", "unit": "1 − accuracy"}
    assert 0 <= found.full <= 1 and 40 * found.full == pytest.approx(round(40 * found.full))


def test_the_fine_tuned_score_is_searched_and_no_plan_is_trained_twice(shared_data, tmp_path):
    from depthprune.specs import HealSpec

    model = str(tiny_checkpoint(tmp_path / "m", "bert", "base", 3))
    data = CalibrationOptions("wnli", str(shared_data / "glue"), samples=20, length=16)
    options = SearchOptions((1,), "finetuned", heal=HealSpec(0.1), store=tmp_path / "runs")
    found = search_layers(model, "greedy", data, options)
    records = sorted((tmp_path / "runs").glob("*/record.json"))
    assert len(records) == 4 and found.trials == 4, "the full model and one plan for each layer"
    times = [record.stat().st_mtime_ns for record in records]
    trace = tmp_path / "trace.jsonl"
    assert search_layers(model, "greedy", data, options, trace=trace).plans == found.plans
    assert [record.stat().st_mtime_ns for record in records] == times

    first, *rest = trace.read_text().splitlines(keepends=True)
    header = json.loads(first)
    assert header["settings"]["heal"]["num_epochs"] == 0.1 and "head" not in header["settings"]["heal"]
    whole = dataclasses.asdict(HealSpec(0.1))  # as an earlier version wrote it, before there were rows without labels
    header["settings"]["heal"] = {name: value for name, value in whole.items() if name != "unlabelled"}
    trace.write_text("".join([json.dumps(header, sort_keys=True) + "\n", *rest]))
    known = trace.read_text()
    assert search_layers(model, "greedy", data, options, trace=trace).plans == found.plans
    assert trace.read_text() == known
    with pytest.raises(UserError, match="another search"):
        search_layers(model, "greedy", data, dataclasses.replace(options, heal=HealSpec(0.2)), trace=trace)


def test_a_search_is_a_file_that_is_read_again(decoder, text, tmp_path):
    trace = tmp_path / "t.jsonl"
    found = search_layers(decoder, "greedy", sample(text), SearchOptions((1, 2)), trace=trace)
    (tmp_path / "f.json").write_text(json.dumps(found.to_dict()))
    assert read_search_result(tmp_path / "f.json") == found
    assert len(read_trace(trace)) == found.trials == 1 + 12 + 11
    assert found.plan(2) == LayerPlan(DEEP, found.plans[2][0])
    with pytest.raises(UserError, match="no plan for --count 3; it has 1, 2"):
        found.plan(3)
    with pytest.raises(UserError, match="is not the file of a search"):
        read_search_result(trace)


def test_a_search_that_is_killed_goes_on_where_it_was(decoder, text, tmp_path):
    code = (
        "import sys; from depthprune.experiments.choosing.search import *;"
        "from depthprune.experiments.choosing.engine import Engine;"
        "from pathlib import Path;"
        f"search_layers({decoder!r}, 'greedy', CalibrationOptions({text!r}, samples=16, length=24),"
        f"SearchOptions((1, 2)), trace=Path({str(tmp_path / 't.jsonl')!r}), engine=Engine(batch_size=1))"
    )
    trace = tmp_path / "t.jsonl"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not trace.exists() or trace.read_text().count("\n") < 8):
        time.sleep(0.01)
    process.kill()
    process.wait()
    known = [line for line in trace.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert len(known) >= 8
    assert len(known) < 1 + 12 + 11, "it was to be killed in the middle"
    how = (decoder, "greedy", sample(text), SearchOptions((1, 2)))
    again = search_layers(*how, trace=trace, engine=Engine(batch_size=1))
    assert trace.read_text().startswith("".join(known)), "nothing that was known was evaluated again"
    assert again.plans == search_layers(*how, engine=Engine(batch_size=1)).plans


@pytest.mark.parametrize(
    "options, message",
    [
        (SearchOptions((12,)), "cannot drop 12 of 12 layers; --count is 1 to 11"),
        (SearchOptions((1,), race=True), "at least 8 batches, and there are 1"),
        (SearchOptions((1,), "metric"), "needs a task with labels"),
        (SearchOptions((1,), "embedding"), "needs a model with no head"),
        (SearchOptions((1,), protect="12"), "layer 12 does not exist"),
    ],
)
def test_what_cannot_be_searched_is_one_line(options, message, decoder, text):
    with pytest.raises(UserError, match=message):
        search_layers(decoder, "greedy", sample(text), options)
