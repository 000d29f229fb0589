"""The paper's numbers beside ours: which model is the paper's, what is compared, and what is left out."""

import statistics
from dataclasses import replace

import pytest

from depthprune.reporting.page import page, sections
from depthprune.reporting.paper.numbers import MODELS, TASKS, paper_model
from depthprune.reporting.paper.tables import paper_tables
from depthprune.reporting.results import Results, read_results
from depthprune.reporting.settings import healing_words
from depthprune.reporting.tables.formats import latex, markdown
from depthprune.reporting.tables.tables import all_tables, cost_table, robustness_table, score_tables, within_table
from depthprune.specs import HealSpec
from made_records import make_record

BERT = {"name": "bert-base-cased", "model_type": "bert", "depth": 12, "parameters": (108_311_810, 7_087_872)}
TOP = {count: tuple(range(12 - count, 12)) for count in (0, 2, 4, 6)}
ODD = (0, 2, 4, 6, 8, 10)


def table(results, start):
    found = [each for each in paper_tables(results) if each.name.startswith(f"paper-{start}")]
    return found[0] if found else None


def rows(results, start):
    found = table(results, start)
    assert found is not None
    assert all(len(row) == len(found.headings) for row in found.rows)
    return found.rows


@pytest.mark.parametrize(
    "name, model_type, parameters, depth, expected",
    [
        ("bert-base-cased", None, 0, 12, "bert-base-cased"),
        ("google-bert/bert-base-cased", "bert", 108_311_810, 12, "bert-base-cased"),
        ("Folder/XLNet-Base-Cased/", None, 0, 12, "xlnet-base-cased"),
        ("here", "bert", 108_311_810, 12, "bert-base-cased"),
        ("here", "bert", 109_483_778, 12, None),  # bert-base-uncased
        ("here", "xlnet", 117_310_466, 12, "xlnet-base-cased"),
        ("here", "distilbert", 66_955_010, 6, "distilbert-base-uncased"),
        ("here", "distilbert", 65_783_042, 6, None),  # distilbert-base-cased
        ("here", "roberta", 124_647_170, 12, "roberta-base"),
        ("here", "roberta", 82_120_000, 6, None),  # distilroberta-base
        ("here", "electra", 108_311_810, 12, None),
        ("here", None, 108_311_810, 12, None),
        ("bert-base-cased", "bert", 94_136_066, 10, None),  # cut before
        ("bert-base-uncased", "bert", 109_483_778, 12, None),
    ],
)
def test_a_model_is_the_papers_by_its_name_or_by_its_architecture_and_size(
    name, model_type, parameters, depth, expected
):
    assert paper_model(name, model_type, parameters, depth) == expected


# Mean over the tasks and what is kept, as the paper's own averages have them (derived in our notes from its table).
@pytest.mark.parametrize(
    "name, means",
    [
        ("bert-base-cased", (86.19, 84.86, 84.19, 83.28)),
        ("xlnet-base-cased", (86.14, 85.60, 85.91, 84.33)),
        ("distilbert-base-uncased", (83.43, 82.94, 82.68, 80.15)),
        ("roberta-base", (86.88, 87.71, 86.94, 85.23)),
    ],
)
def test_the_papers_rows_have_the_papers_means_and_its_chart_agrees(name, means):
    paper = MODELS[name]
    for (count, scores), mean in zip(sorted(paper.top.items()), means, strict=True):
        assert len(scores) == len(TASKS) and statistics.fmean(scores) == pytest.approx(mean, abs=0.006)
        if count in paper.means.get("top", {}):
            assert paper.means["top"][count] == pytest.approx(mean, abs=0.04)
    assert all(a <= b for i in range(5) for a, b in zip(_within(paper, i), _within(paper, i)[1:], strict=False))


def _within(paper, i):
    return [paper.within[most][i] for most in sorted(paper.within)]


def like_the_paper(root, tasks, counts=(0, 2, 4, 6), more=0.0, **given):
    for task in tasks:
        for count in counts:
            score = MODELS["bert-base-cased"].top[count][TASKS.index(task)] / 100 + more
            make_record(root, TOP[count], score, task=task, **{**BERT, **given})


def test_scores_stand_beside_the_papers_with_spread_and_difference(tmp_path):
    like_the_paper(tmp_path, ("mrpc", "rte"), more=0.01)
    like_the_paper(tmp_path, ("mrpc",), more=-0.02, seed=43)
    found = rows(read_results(tmp_path), "scores")
    assert ("mrpc", "6", "79.65 ± 2.12", "80.15", "-0.50") in found
    assert ("rte", "0", "68.87", "67.87", "+1.00") in found
    assert [row[:2] for row in found] == [(task, str(count)) for task in ("rte", "mrpc") for count in (0, 2, 4, 6)]
    assert "seeds 42, 43" in table(read_results(tmp_path), "scores").note


def test_other_models_are_not_compared(tmp_path):
    make_record(tmp_path, (), 0.85)
    make_record(tmp_path, (4, 5), 0.80)
    results = read_results(tmp_path)
    assert paper_tables(results) == []
    assert "paper" not in [section.anchor for section in sections(results, tmp_path)]


def test_a_model_that_only_its_size_gives_away_is_said_to_be_one(tmp_path):
    like_the_paper(tmp_path, ("mrpc",), name="our-copy")
    like_the_paper(tmp_path, ("mrpc",), model="sha256:named")
    notes = [each.note for each in paper_tables(read_results(tmp_path)) if each.name.startswith("paper-scores")]
    assert ["taken for bert-base-cased" in note for note in notes] == [True, False]


def test_means_are_over_the_tasks_that_both_have(tmp_path):
    like_the_paper(tmp_path, ("mrpc", "sst2"), counts=(0, 6))
    for task in ("mrpc", "sst2"):
        make_record(tmp_path, ODD, 0.80, task=task, **BERT)
    found = rows(read_results(tmp_path), "means")
    assert found == (
        ("full model", "0", "sst2, mrpc", "90.21", "90.21", "0.00"),
        ("top", "6", "sst2, mrpc", "85.20", "85.20", "0.00"),
    )
    assert "Left out" in table(read_results(tmp_path), "means").note
    for task in TASKS:
        if task not in ("mrpc", "sst2"):
            like_the_paper(tmp_path, (task,), counts=(0, 6))
            make_record(tmp_path, ODD, 0.80, task=task, **BERT)
    found = rows(read_results(tmp_path), "means")
    assert ("odd-alternate", "6", "all seven", "80.00", "81.28 (chart)", "-1.28") in found
    assert ("top", "6", "all seven", "83.28", "83.28", "0.00") in found
    assert "Left out" not in table(read_results(tmp_path), "means").note


def test_the_spread_of_a_mean_is_over_the_seeds_that_all_tasks_have(tmp_path):
    for seed, more in (42, 0.0), (43, 0.02):
        like_the_paper(tmp_path, ("mrpc", "sst2"), counts=(0, 6), more=more, seed=seed)
    like_the_paper(tmp_path, ("mrpc",), counts=(0, 6), more=0.01, seed=44)
    assert ("top", "6", "sst2, mrpc", "86.20 ± 1.41", "85.20", "+1.00") in rows(read_results(tmp_path), "means")


def test_the_largest_k_stands_beside_the_papers(tmp_path):
    like_the_paper(tmp_path, ("sst2", "mrpc"))
    assert rows(read_results(tmp_path), "within") == (("sst2", "2", "2", "4", "5", "6", "7", "2,4,6"),)


def test_size_and_speed_stand_beside_the_papers(tmp_path):
    like_the_paper(tmp_path, ("sst2",))
    found = rows(read_results(tmp_path), "cost")
    assert found[0] == ("0", "108.3 M", "110 M", "–", "–", "–", "–")
    assert found[3] == ("6", "65.8 M", "66 M", "2.00×", "1.94×", "50 %", "50 %")


def test_runs_of_other_recipes_are_not_set_beside_the_papers(tmp_path):
    like_the_paper(tmp_path, ("mrpc",))
    before = paper_tables(read_results(tmp_path))
    for heal in HealSpec(epochs_before=3), HealSpec(freeze_layers=(0,)):
        make_record(tmp_path, TOP[6], 0.5, heal=heal, **BERT)
    assert paper_tables(read_results(tmp_path)) == before
    make_record(tmp_path, TOP[6], 0.5, heal=HealSpec(num_epochs=6), **BERT)
    more = [each.name for each in paper_tables(read_results(tmp_path))]
    assert len(more) > len(before) and len(set(more)) == len(more)


def test_the_page_has_a_section_and_every_format_has_the_tables(tmp_path):
    like_the_paper(tmp_path, TASKS)
    results = read_results(tmp_path)
    assert "Beside the paper" in page(results, tmp_path)
    tables = all_tables(results)
    assert "| mrpc | 6 | 80.15 | 80.15 | 0.00 |" in markdown(tables)
    assert len({each.name for each in tables}) == len(tables)
    assert not set(latex(tables)) & set("−≤≥δ"), "what LaTeX cannot set"


def test_the_cost_of_fine_tuning_is_beside_the_full_models_on_the_same_task(tmp_path):
    for task, seconds in ("mrpc", 10.0), ("qqp", 1000.0):
        make_record(tmp_path, (), 0.85, task=task, seconds_healing=2 * seconds)
        make_record(tmp_path, (4, 5), 0.80, task=task, seconds_healing=seconds)
    for dropped in (4, 5), (3, 4), (2, 3):
        make_record(tmp_path, dropped, 0.80, heal=HealSpec(epochs_before=3), seconds_healing=90.0)
    make_record(tmp_path, (3, 4, 5), 0.80, task="qqp", seed=7, seconds_healing=1.0)  # its full model was never run
    found = {row[1:3]: row[-1] for row in cost_table(read_results(tmp_path)).rows}
    assert found[("mrpc", "2")] == found[("qqp", "2")] == "2.00×" and found[("qqp", "3")] == "n/a"


def test_robustness_counts_the_plans_that_all_tasks_have(tmp_path):
    for task, losses in {"qqp": {(4, 5): 0.04}, "rte": {(4, 5): 0.02, (0, 1): 0.30}}.items():
        make_record(tmp_path, (), 0.85, task=task)
        for dropped, lost in losses.items():
            make_record(tmp_path, dropped, 0.85 - lost, task=task)
    assert robustness_table(read_results(tmp_path)).rows == (("tiny", "rte", "2.00", "1"), ("tiny", "qqp", "4.00", "1"))
    make_record(tmp_path, (), 0.85, task="sst2")
    make_record(tmp_path, (2, 3), 0.80, task="sst2")
    assert robustness_table(read_results(tmp_path)).rows == (), "no plan is common to all three"


def test_recipes_are_kept_apart(tmp_path):
    twice = HealSpec(epochs_before=3)
    for seed, full in (42, 0.85), (43, 0.87):
        make_record(tmp_path, (), full, seed=seed)
        make_record(tmp_path, (4, 5), 0.80, seed=seed)
        make_record(tmp_path, (4, 5), 0.86, seed=seed, heal=twice)
    results = read_results(tmp_path)
    runs = [replace(run, recipe="twice") if run.heal == twice else run for run in results.runs]
    results = Results(tuple(runs))
    plain, other = score_tables(results)
    assert plain.name != other.name
    assert "full model 86.00 ± 1.41" in plain.title and "full model 86.00 ± 1.41" in other.title
    assert other.rows == (("top", "86.00 ± 0.00 (100.0 %)"),)
    found = within_table(results)
    assert found.headings[3] == "recipe"
    assert [row[3:5] for row in found.rows] == [(healing_words(HealSpec()), "0"), (healing_words(twice), "2")]
    assert within_table(Results(tuple(run for run in runs if run.recipe != "twice"))).headings[3] == "within 1"
