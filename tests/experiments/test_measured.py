"""What is measured once for many runs: the precision that all train in, and how fast a plan is."""

import json
from dataclasses import replace

import pytest

from depthprune.experiments.comparison import compare
from depthprune.experiments.measured import decide_precision
from depthprune.experiments.run import run
from depthprune.experiments.specification import make_spec
from depthprune.experiments.store.store import MEASURED, Store
from depthprune.experiments.sweeps.status import tally
from depthprune.healing.precision import Probe
from depthprune.plan import LayerPlan
from depthprune.result_file import write_once
from depthprune.sources import locate
from depthprune.specs import DropSpec, EvalSpec, HealSpec, RunSpec
from depthprune.tasks import TaskOptions, load_task
from made_records import make_record
from tiny_models import tiny_checkpoint, words

FULL = RunSpec("sha256:" + "a" * 64, EvalSpec("mrpc", "sha256:rows"))
CUT = replace(FULL, drop=DropSpec((4, 5)))


def probe(precision: str):
    return lambda: Probe(precision, {"float32": 1.0, "bfloat16": 1.0})


def no_probe() -> Probe:
    raise AssertionError("it is decided already")


def put_full_record(store: Store, precision: str, **more) -> str:
    return make_record(store.root, (), 0.8, heal=HealSpec(), more_heal={"precision": precision, "steps": 9}, **more)


def test_a_pruned_run_trains_in_the_precision_of_the_full_models_record(tmp_path):
    store = Store(tmp_path)
    digest = put_full_record(store, "bfloat16")
    assert digest == FULL.digest()
    found = decide_precision(CUT, store, "cpu", no_probe)
    assert (found.precision, found.decided) == ("bfloat16", f"as the full model's record {digest}")


def test_what_the_first_run_decided_holds_for_every_other(tmp_path):
    store = Store(tmp_path)
    first = decide_precision(FULL, store, "cpu", probe("bfloat16"))
    others = [CUT, replace(CUT, seed=7), replace(FULL, evaluation=replace(FULL.evaluation, task="rte"))]
    assert [decide_precision(spec, Store(str(tmp_path)), "cpu", no_probe) for spec in others] == [first] * 3
    assert first.decided == "probe" and first.seconds == {"float32": 1.0, "bfloat16": 1.0}
    other_batch = replace(CUT, heal=replace(CUT.heal, batch_size=8))
    assert decide_precision(other_batch, store, "cpu", probe("float32")).precision == "float32"
    assert len(list((tmp_path / MEASURED).iterdir())) == 2 and tally(store).foreign == []


def test_of_two_workers_that_decide_at_once_the_first_decides_for_both(tmp_path):
    store = Store(tmp_path)

    def while_another_decides() -> Probe:
        decide_precision(CUT, store, "cpu", probe("bfloat16"))
        return Probe("float32", {})

    assert decide_precision(FULL, store, "cpu", while_another_decides).precision == "bfloat16"
    assert decide_precision(CUT, store, "cpu", no_probe).precision == "bfloat16"


def test_an_older_store_decides_by_its_records_of_full_models_on_such_a_device(tmp_path):
    store = Store(tmp_path)
    put_full_record(store, "bfloat16", seed=1, environment={"device": "some GPU"})
    digest = put_full_record(store, "float32", seed=2, environment={"device": "cpu"})
    put_full_record(store, "bfloat16", seed=3, model="sha256:" + "b" * 64, environment={"device": "cpu"})
    found = decide_precision(CUT, store, "cpu", no_probe)
    assert (found.precision, found.decided) == ("float32", f"as the full model's record {digest}")


def test_a_precision_that_was_asked_for_is_not_decided(tmp_path):
    asked = replace(CUT, heal=replace(CUT.heal, precision="bfloat16"))
    found = decide_precision(asked, Store(tmp_path), "cpu", no_probe)
    assert (found.precision, found.decided) == ("bfloat16", "asked for")
    assert not list(tmp_path.iterdir())


def test_what_is_written_once_stays(tmp_path):
    write_once(tmp_path / "file.json", 1)
    write_once(tmp_path / "file.json", 2)
    assert json.loads((tmp_path / "file.json").read_text()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    tiny_checkpoint(folder / "model", "bert", "base", 4)
    lines = words(240, line=6).splitlines()[:40]
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{line},{i % 2}\n" for i, line in enumerate(lines)))
    return folder


def compared(here, store, **more):
    data = TaskOptions(str(here / "rows.csv"), ("text",), "label")
    heal = HealSpec(num_epochs=1)
    return compare(str(here / "model"), "custom", options=data, heal=heal, store=store, device="cpu", save=False,
                   **{"layers": "2,3", "max_length": 16, **more})  # fmt: skip


def test_a_comparison_records_its_precision_and_a_speed_with_its_interval(here, tmp_path):
    stages = []
    found = compared(here, tmp_path, on_progress=lambda stage, done, total: stages.append(stage.partition(" · ")[0]))
    heals = [result.outcome["heal"] for result in (found.full, found.pruned)]
    assert heals[0]["precision"] == heals[1]["precision"]
    assert heals[1]["precision_decided"] == f"as the full model's record {found.full.digest}"
    full, cut = (result.outcome["profile"] for result in (found.full, found.pruned))
    assert full["latency_ms"] == full["full_latency_ms"] > 0 and "speedup" not in full
    speedup = cut["speedup"]
    assert 0 < speedup["low"] <= speedup["value"] <= speedup["high"] and speedup["batches"] >= 6
    assert cut["parameters"] < cut["full_parameters"] == full["parameters"]
    assert list(dict.fromkeys(stages)) == [
        *(f"full model: {stage}" for stage in ("tokenising", "loading the model", "timing the model")),
        *([f"full model: {'trying float32 and bfloat16'}"] if heals[0]["precision_seconds"] else []),
        *(f"full model: {stage}" for stage in ("training", "scoring")),
        *(f"pruned model: {stage}" for stage in ("tokenising", "loading the model", "timing the model")),
        *(f"pruned model: {stage}" for stage in ("training", "scoring")),
    ]


def test_another_seed_takes_the_speed_from_the_store_and_force_measures_anew(here, tmp_path):
    first = compared(here, tmp_path).pruned.outcome["profile"]
    again = compared(here, tmp_path, seed=43)
    kept = again.pruned.outcome["profile"]
    assert kept["timed"] == "in an earlier run" and kept["speedup"] == first["speedup"]
    assert "timed" not in compared(here, tmp_path, force=True).pruned.outcome["profile"]


def test_without_a_profile_nothing_is_timed(here, tmp_path):
    found = compared(here, tmp_path, profile=False)
    for result in (found.full, found.pruned):
        assert result.outcome["profile"]["latency_ms"] is result.outcome["profile"]["full_latency_ms"] is None
        assert result.outcome["profile"]["parameters"] > 0
    assert not list(tmp_path.glob(f"{MEASURED}/speed-*"))


def test_a_run_trains_in_what_the_full_models_record_says(here, tmp_path):
    source = locate(str(here / "model"))
    data = load_task("custom", TaskOptions(str(here / "rows.csv"), ("text",), "label"))
    recipe = {"heal": HealSpec(num_epochs=1), "max_length": 16, "seed": 1}
    whole, cut = (make_spec(source, data, LayerPlan(4, dropped), **recipe) for dropped in ((), (3,)))
    put_full_record(Store(tmp_path), "bfloat16", spec=whole)
    result = run(source, data, cut, store=Store(tmp_path), profile=False)
    assert result.outcome["heal"]["precision"] == "bfloat16"
