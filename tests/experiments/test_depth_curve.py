"""One training, and a checkpoint and a record for each of several depths."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import depthprune
from depthprune.errors import UserError
from depthprune.experiments.depths.recipe import read_depths
from depthprune.experiments.store.store import Store
from depthprune.healing.recipe import parse_recipe
from depthprune.reporting.results import read_results
from depthprune.specs import HealSpec
from depthprune.surgery.bypass import bypassed
from depthprune.tasks import TaskOptions
from tiny_models import inputs, tiny_checkpoint, words

HEAL = HealSpec(num_epochs=1, batch_size=8, learning_rate=1e-3, precision="float32")


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("curve")
    tiny_checkpoint(folder / "model", "bert", "base", 4)
    lines = words(32 * 6, line=6).splitlines()[:32]
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{line},{i % 2}\n" for i, line in enumerate(lines)))
    return folder


def once(here: Path, depths: object, heal: HealSpec = HEAL, **more):
    options = TaskOptions(str(here / "rows.csv"), ("text",), "label")
    known = {"options": options, "heal": heal, "max_length": 16, "device": "cpu", "profile": False}
    return depthprune.train_once(here / "model", "custom", depths, **{**known, "store": here / "runs", **more})


@pytest.fixture(scope="module")
def curve(here):
    return once(here, "4,3,1", output=here / "out")


def records(store: Path) -> dict[str, int]:
    return {file.parent.name: file.stat().st_mtime_ns for file in store.glob("*/record.json")}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs()).logits


def test_every_depth_is_the_trained_model_with_layers_bypassed(here, curve):
    whole = AutoModelForSequenceClassification.from_pretrained(curve.runs[4].model)
    full = logits(whole)
    for depth, dropped in {3: (3,), 1: (1, 2, 3)}.items():
        assert curve.runs[depth].model == here / "out" / f"depth-{depth}"
        short = AutoModelForSequenceClassification.from_pretrained(curve.runs[depth].model)
        assert short.config.num_hidden_layers == depth
        with bypassed(whole, dropped):
            assert torch.equal(logits(whole), logits(short)) and not torch.equal(logits(short), full)


def test_one_training_serves_all_depths_and_the_full_model_has_its_own(curve):
    steps = {depth: result.outcome["heal"]["steps"] for depth, result in curve.runs.items()}
    assert steps == {4: 4, 3: 0, 1: 0} and curve.full.outcome["heal"]["steps"] == 4
    assert curve.full.digest not in {result.digest for result in curve.runs.values()}
    assert all(curve.runs[depth].outcome["heal"]["trained_in"] == curve.runs[4].digest for depth in (3, 1))
    (step,) = curve.runs[1].record["spec"]["heal"]["steps"]
    assert dict(map(tuple, step["options"])) == {"depths": [1, 2, 3], "order": "3,2,1"}
    assert curve.retention(1) == curve.runs[1].measured.retained(curve.full.measured)


def test_another_depth_costs_no_training_and_what_is_there_is_left_alone(here, curve):
    before = records(here / "runs")
    again = once(here, (4, 2, 3, 1), output=here / "out")
    after = records(here / "runs")
    assert {digest: after[digest] for digest in before} == before and len(after) == len(before) + 1
    assert [result.stored for result in again.runs.values()] == [True, True, False, True]
    assert again.runs[2].outcome["heal"]["steps"] == 0 and (here / "out" / "depth-2" / "config.json").is_file()


def test_a_cut_by_its_recipe_is_the_run_of_that_depth(here, curve):
    heal = replace(HEAL, steps=parse_recipe("adaptive-layers(depths=1-3, order=3,2,1)"))
    options = TaskOptions(str(here / "rows.csv"), ("text",), "label")
    known = {"options": options, "heal": heal, "max_length": 16, "device": "cpu", "profile": False}
    found = depthprune.run(here / "model", "custom", layers="3", store=here / "runs", **known)
    assert found.pruned.stored and found.pruned.digest == curve.runs[3].digest
    assert once(here, "4", heal).runs[4].digest == curve.runs[4].digest, "as a report's command for the whole model"


def test_other_depths_or_another_order_are_another_training(here, curve):
    known = {result.digest for result in curve.runs.values()}
    for depths, more in [("3", {}), ("3,1", {"strategy": "bottom"}), ("3,1", {"seed": 7})]:
        found = once(here, depths, store=here / "others", **more)
        assert not known & {result.digest for result in found.runs.values()}
    assert len(records(here / "others")) == (1 + 1 + 1) + (1 + 2) + (1 + 1 + 2)  # full, training, depths


def test_what_is_done_outlives_an_interrupt_between_depths(here, tmp_path):
    def stop(stage, done, total):
        if stage == "depth 1: scoring":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(here, "3,1", store=tmp_path, on_progress=stop)
    before, seen = records(tmp_path), []
    assert len(before) == 3, "the full model, the training and depth 3"
    found = once(here, "3,1", store=tmp_path, on_progress=lambda stage, *_: seen.append(stage))
    assert found.runs[3].stored and not found.runs[1].stored and not any("training" in stage for stage in seen)
    assert {digest: records(tmp_path)[digest] for digest in before} == before


def test_layerdrop_and_a_recipe_that_goes_on_at_each_depth(here, tmp_path):
    found = once(here, "4,2", replace(HEAL, steps=parse_recipe("layerdrop(rate=0.5)")), store=tmp_path)
    assert [result.outcome["heal"]["steps"] for result in found.runs.values()] == [4, 0]
    found = once(here, "2", replace(HEAL, steps=parse_recipe("layerdrop(rate=0.5)+finetune")), store=tmp_path)
    assert found.runs[2].outcome["heal"]["steps"] == 4 and len(records(tmp_path)) == 4, "the training is shared"


def test_a_smaller_depth_lacks_what_a_larger_one_lacks_whatever_chose_them(here, tmp_path):
    found = once(here, "3,2,1", store=tmp_path, strategy="magnitude")
    gone = [set(result.outcome["plan"]["dropped"]) for result in found.runs.values()]
    assert list(map(len, gone)) == [1, 2, 3] and gone[0] < gone[1] < gone[2]


def test_a_report_shows_the_depths_as_one_curve_beside_the_full_model(here, curve):
    runs = {run.digest: run for run in read_results(here / "runs").runs}
    of_curve = [runs[result.digest] for result in curve.runs.values()]
    assert len({run.recipe for run in of_curve}) == 1 and all("top" in run.strategies for run in of_curve)
    assert all(run.full == curve.full.measured for run in of_curve)
    assert [run.is_full for run in of_curve] == [False] * 3 and runs[curve.full.digest].is_full
    target = here / "report.html"
    depthprune.report(here / "runs", output=target)
    assert "K = 0" in target.read_text()


def test_a_checkpoint_that_was_cleaned_is_trained_again_only_where_it_is_needed(here, tmp_path):
    import shutil

    first = once(here, "3", store=tmp_path)
    training = first.runs[3].outcome["heal"]["trained_in"]
    shutil.rmtree(Store(tmp_path).model_folder(training))
    assert once(here, "3", store=tmp_path).runs[3].stored and not Store(tmp_path).model_folder(training).exists()


@pytest.mark.parametrize(
    "depths, message",
    [
        ("", "are not numbers of layers; write 12,9,6 or 4-12"),
        ("3,two", "the depths '3,two' are not numbers of layers"),
        ("3,0", "the number of layers that are left, 1 or more"),
        ("3,1-3", "the depth 3 is given twice; give each once"),
        ((3, 2.5), "a depth is a number of layers, not 2.5"),
        ((), "1 or more; write 12,9,6"),
    ],
)
def test_depths_that_cannot_be_are_refused(depths, message):
    with pytest.raises(UserError, match=message):
        read_depths(depths)


def test_the_record_of_a_depth_says_what_a_record_always_says(here, curve):
    record = json.loads((here / "runs" / curve.runs[3].digest / "record.json").read_text())
    assert record["outcome"]["plan"]["dropped"] == [3] == record["spec"]["drop"]["dropped"]
    assert record["outcome"]["profile"]["parameters"] < record["outcome"]["profile"]["full_parameters"]
