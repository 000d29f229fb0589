"""Numbers with a unit and a direction: what is kept and lost, and what old records mean."""

import json
import math
from pathlib import Path

import pytest

from depthprune.cli.auto import answer_lines
from depthprune.errors import UserError
from depthprune.evaluation.base import score
from depthprune.evaluation.measurement import Measurement, measurement_of, measurements_of, primary_of
from depthprune.experiments.analyses.subject import check_task
from depthprune.experiments.choosing.objectives import cost_of
from depthprune.experiments.store.cleaning import best_checkpoints
from depthprune.experiments.store.records import records
from depthprune.experiments.store.store import Store, readable_record
from depthprune.experiments.sweeps.auto import Answer
from depthprune.experiments.sweeps.bounds import Bounds
from depthprune.experiments.sweeps.status import best_plans
from depthprune.reporting.answer import answers, sentences
from depthprune.reporting.claims import NOT_TESTABLE, verdicts
from depthprune.reporting.claims.rows import row_variance
from depthprune.reporting.drawings.charts import depth_chart, pareto_front
from depthprune.reporting.page import page
from depthprune.reporting.results import read_results
from depthprune.reporting.tables.formats import comma_separated
from depthprune.reporting.tables.tables import all_tables
from depthprune.specs import run_spec_of
from depthprune.tasks import Task, TaskData
from depthprune.tasks.base import with_metric
from depthprune.tasks.metrics.base import metric, possible_metrics, registry
from made_records import make_record

RECORDS = sorted((Path(__file__).parents[2] / "docs" / "results" / "minilm").glob("*/record.json"))
PERPLEXITY = {"unit": "", "better": "lower", "standard_error": 0.1}
SCORES = {(): 4.0, (4,): 4.02, (5,): 5.28, (4, 5): 9.0}


def perplexity(value: float) -> Measurement:
    return Measurement(value, 100, "", "lower")


@pytest.fixture
def store(tmp_path) -> Path:
    """Runs of a language model: without layer 4 it is nearly as good, without 5 and without both it is worse."""
    for dropped, value in SCORES.items():
        made = make_record(
            tmp_path, dropped, value, task="language-modelling", metric="perplexity", parameters=(100, 9)
        )
        say(tmp_path / made, "perplexity", **PERPLEXITY)
    return tmp_path


def say(folder: Path, name: str, **more) -> None:
    """Put the unit and the direction into a record."""
    record = json.loads((folder / "record.json").read_text())
    record["outcome"]["metrics"][name] |= more
    (folder / "record.json").write_text(json.dumps(record))


def test_old_records_hold_fractions_where_higher_is_better_and_keep_their_digests():
    assert len(RECORDS) > 40
    for file in RECORDS:
        record = readable_record(file)
        assert record is not None and run_spec_of(record["spec"]).digest() == file.parent.name
        for name, entry in record["outcome"]["metrics"].items():
            found = measurements_of(record["outcome"])[name]
            assert (found.value, found.examples) == (entry["value"], entry["examples"])
            assert (found.unit, found.better, found.standard_error) == ("fraction", "higher", None)
            assert found.to_dict() == entry, "a new record of such a metric says nothing more"


def test_a_measurement_is_read_as_it_was_written():
    for each in Measurement(0.5, 10), Measurement(5.3, 7, "", "lower", 0.2), Measurement(1.5, 3, "bits", "lower"):
        assert measurement_of(json.loads(json.dumps(each.to_dict()))) == each


@pytest.mark.parametrize("entry", [0.5, {"value": 0.5, "better": "sideways"}, {"value": 0.5, "unit": 3}, {"unit": ""}])
def test_a_record_whose_metric_is_no_measurement_does_not_count_as_done(entry, tmp_path):
    folder = tmp_path / make_record(tmp_path, (), 0.8)
    record = json.loads((folder / "record.json").read_text())
    assert readable_record(folder / "record.json") is not None
    record["outcome"]["metrics"]["accuracy"] = entry
    (folder / "record.json").write_text(json.dumps(record))
    assert readable_record(folder / "record.json") is None


def test_what_is_kept_and_lost_goes_by_which_way_is_better():
    better, worse, full = perplexity(3.5), perplexity(5.0), perplexity(4.0)
    assert better.lost(full) == -0.5 and worse.lost(full) == 1.0 and better.merit > full.merit > worse.merit
    assert worse.retained(full) == 0.8 and worse.compared(full) == "1.25 ×"
    assert perplexity(0.0).retained(full) is None and perplexity(0.0).compared(full) is None
    assert Measurement(0.6).lost(Measurement(0.8)) == pytest.approx(0.2) and Measurement(0.9).merit > 0.8
    assert perplexity(123456.0).shown() == "1.235e+05" and Measurement(0.5).amount(-0.01) == "-1.00 points"


def test_a_search_minimises_a_metric_where_lower_is_better_and_one_minus_any_other():
    assert cost_of(Measurement(0.9)) < cost_of(Measurement(0.8))
    assert cost_of(perplexity(3.5)) < cost_of(perplexity(4.0))


@pytest.fixture
def error_rate():
    """A metric of another package where lower is better."""

    @metric("error_rate", kinds=("classification",), better="lower")
    def error_rate(expected, predicted):
        """Share of wrong answers."""
        return sum(a != b for a, b in zip(expected, predicted, strict=True)) / len(expected)

    yield error_rate
    registry.remove("error_rate")


def test_a_metric_of_another_package_is_one_of_those_that_a_task_can_have(error_rate):
    task = Task("t", ("text",), "label", ("no", "yes"), ("accuracy", "f1"))
    chosen = with_metric(task, "error_rate")
    assert chosen.metrics == ("error_rate", "accuracy", "f1") and chosen.chosen_metric == "error_rate"
    assert score(chosen, [0, 1, 1, 0], [0, 1, 0, 0])["error_rate"] == 0.25
    assert "error_rate" not in possible_metrics("regression") and "f1" not in possible_metrics("classification", 3)
    with pytest.raises(
        UserError, match="'pearson' is not a metric of 't', a task with 2 classes; it can have accuracy, "
    ):
        with_metric(task, "pearson")


def test_a_probe_is_not_scored_by_a_metric_where_lower_is_better(error_rate):
    task = Task("t", ("text",), "label", ("no", "yes"), ("accuracy",))
    check_task(TaskData(task, {}), probed=True)
    with pytest.raises(UserError, match="better the higher it is, and 'error_rate' is not; give another --metric"):
        check_task(TaskData(with_metric(task, "error_rate"), {}), probed=True)


@pytest.mark.parametrize(
    "wrong, message", [("0.5", "returned '0.5', which is no number"), (math.nan, "is nan, no finite")]
)
def test_a_metric_that_returns_no_number_is_named(wrong, message):
    task = Task("t", ("text",), "label", ("no", "yes"), ("odd",))
    metric("odd", kinds=("classification",))(lambda expected, predicted: wrong)
    try:
        with pytest.raises(UserError, match=message):
            score(task, [0], [0])
    finally:
        registry.remove("odd")


def test_the_best_plan_of_a_language_model_has_the_lowest_perplexity(store):
    (best,) = best_plans([record for _, record in records(Store(store)) if record])
    assert best.record["spec"]["drop"]["dropped"] == [4] and best.measured.value == 4.02
    assert best.retention == pytest.approx(4.0 / 4.02)


def test_plans_of_a_task_with_two_metrics_are_not_compared_with_each_other(tmp_path):
    make_record(tmp_path, (4,), 0.9)
    made = make_record(tmp_path, (5,), 0.2, metric="error_rate", seed=2)
    say(tmp_path / made, "error_rate", better="lower")
    found = best_plans([record for _, record in records(Store(tmp_path)) if record])
    assert {best.task: best.measured.value for best in found} == {"mrpc (accuracy)": 0.9, "mrpc (error_rate)": 0.2}


def test_a_bound_is_on_how_much_worse_a_perplexity_is(store):
    by_plan = {tuple(record["spec"]["drop"]["dropped"]): record for _, record in records(Store(store)) if record}
    full = primary_of(by_plan[()]["outcome"])
    within = lambda bounds: {plan for plan, record in by_plan.items() if bounds.allow(record, full)}  # noqa: E731
    assert within(Bounds(0.0)) == {()}
    assert within(Bounds(0.01, relative=True)) == {(), (4,)}, "4.02 is half a percent above 4.00"
    assert within(Bounds(0.013)) == {(), (4,), (5,)}, "--max-loss 1.3 is 1.3 of perplexity"


def test_the_answer_of_auto_says_how_far_above_the_full_model_a_perplexity_is(store):
    tried = {name: record for name, record in records(Store(store)) if record}
    full = next(name for name, record in tried.items() if not record["spec"]["drop"]["dropped"])
    cut = next(name for name, record in tried.items() if record["spec"]["drop"]["dropped"] == [5])
    answer = Answer(cut, tried[cut], primary_of(tried[full]["outcome"]), tried, True, store / "model")
    lines = list(answer_lines(answer, type("Nothing", (), {"rows": []}), answer.checkpoint))
    assert "  score: perplexity 5.28 on 400 rows, 1.28 above the full model's 4.00" in lines
    none = Answer(full, tried[full], answer.full, tried, True, store / "model")
    lines = list(answer_lines(none, type("Nothing", (), {"rows": []}), none.checkpoint))
    assert "  nearest: without layers 4 perplexity is 4.02, 0.02 above" in lines


def test_the_report_recommends_the_plan_with_the_low_perplexity_and_says_which_way_is_better(store):
    results = read_results(store)
    (answer,) = answers(results)
    head, numbers, _ = sentences(answer)
    assert head.startswith("Drop layer 4 of tiny") and answer.within, "half a percent is little"
    assert "Perplexity 4.02, one seed, the full model 4.00: a difference of +0.02" in numbers
    assert "1.00 × the full model's; lower is better" in numbers and "points" not in numbers
    tables = {table.name: table for table in all_tables(results)}
    scores = next(table for name, table in tables.items() if name.startswith("scores-language"))
    assert "full model 4.00" in scores.title and "Lower is better" in scores.note
    assert {cell for row in scores.rows for cell in row[1:]} >= {"5.28 (1.32 ×)", "9.00 (2.25 ×)"}
    assert "within" not in tables and "robustness" not in tables, "they count points"
    assert tables["answer"].headings[2:5] == ("score", "full model", "difference")
    front = [run.dropped for run in pareto_front(results.runs)]
    assert front == [(4, 5), (4,), ()], "the smallest first, and 5.28 is beaten by 4.02 of the same size"
    assert "perplexity (lower is better)" in depth_chart(results.runs, [perplexity(4.0)])
    assert "Where lower is better the share is" in page(results, store)
    assert comma_separated(results).splitlines()[1].endswith(",lower")


def test_where_a_perplexity_rises_much_no_plan_is_within_the_bound(tmp_path):
    for dropped, value in ((), 4.0), ((4,), 4.2):
        made = make_record(tmp_path, dropped, value, task="language-modelling", metric="perplexity")
        say(tmp_path / made, "perplexity", **PERPLEXITY)
    (answer,) = answers(read_results(tmp_path))
    assert not answer.within


def test_the_papers_claims_and_numbers_are_not_held_against_a_metric_where_lower_is_better(tmp_path):
    made = [
        make_record(tmp_path, dropped, value, metric="error_rate", seed=seed, depth=12, name="bert-base-cased")
        for dropped, value in (((), 0.15), ((8, 9, 10, 11), 0.20), ((0, 1, 2, 3), 0.40))
        for seed in range(3)
    ]
    shown = lambda: any(table.name.startswith("paper-") for table in all_tables(read_results(tmp_path)))  # noqa: E731
    assert verdicts(read_results(tmp_path), every=False) and shown(), "as long as nobody knows that lower is better"
    for digest in made:
        say(tmp_path / digest, "error_rate", better="lower")
    assert {verdict.verdict for verdict in verdicts(read_results(tmp_path))} == {NOT_TESTABLE} and not shown()


def test_tasks_on_different_scales_have_no_average(tmp_path):
    for task in "mrpc", "rte", "language-modelling":
        for dropped, value in ((), 0.8), ((4, 5), 0.7):
            made = make_record(tmp_path, dropped, value, task=task, metric="perplexity" if "-" in task else "accuracy")
            say(tmp_path / made, "perplexity", **PERPLEXITY) if "-" in task else None
    titles = [table.title for table in all_tables(read_results(tmp_path)) if table.name.startswith("scores-average")]
    assert len(titles) == 1 and "on average over mrpc, rte" in titles[0]


def test_what_rows_say_of_a_perplexity_is_from_its_blocks_or_its_standard_error(store, tmp_path_factory):
    root = tmp_path_factory.mktemp("blocks")
    tokens, losses = [10, 10, 20, 10], [12.0, 14.0, 27.0, 13.0]
    made = make_record(root, (4,), math.exp(66 / 50), task="language-modelling", metric="perplexity",
                       predictions=(tokens, losses))  # fmt: skip
    say(root / made, "perplexity", **PERPLEXITY)
    (run,) = read_results(root).runs
    variance, paired = row_variance([(1.0, run)])
    assert paired and variance is not None and 0 < variance**0.5 < 0.5
    (run,) = [run for run in read_results(store).runs if run.dropped == (4,)]
    assert row_variance([(1.0, run)]) == (pytest.approx(0.01), False)


def test_the_checkpoint_that_stays_is_the_one_with_the_lowest_perplexity(store):
    (kept,) = best_checkpoints(Store(store))
    record = readable_record(store / kept / "record.json")
    assert record is not None and record["spec"]["drop"]["dropped"] == [4]
