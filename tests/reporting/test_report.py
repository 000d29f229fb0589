"""The report: every table and format, verdicts that can go either way, ten thousand records in seconds."""

import csv
import io
import json
import re
import shlex
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

import depthprune
from depthprune.errors import UserError
from depthprune.healing.recipe import parse_recipe
from depthprune.reporting.claims import INCONCLUSIVE, NOT_SUPPORTED, NOT_TESTABLE, SUPPORTED, verdicts
from depthprune.reporting.drawings.charts import pareto_front, slowness
from depthprune.reporting.page import page, sections
from depthprune.reporting.results import read_results
from depthprune.reporting.tables.formats import comma_separated, latex, markdown
from depthprune.reporting.tables.tables import all_tables
from depthprune.specs import HealSpec
from made_records import make_record, make_seeds

BY_POSITION = {"top": (4, 5), "bottom": (0, 1), "symmetric": (2, 3), "even-alternate": (3, 5), "odd-alternate": (2, 4)}


def fill(root, scores, **more):
    make_record(root, (), 0.85, **more)
    for name, score in scores.items():
        make_record(root, BY_POSITION[name], score, **more)


def verdict(root, number):
    return next(v for v in verdicts(read_results(root)) if v.number == number)


def test_the_tables_say_what_the_records_say(tmp_path):
    fill(tmp_path, {"top": 0.80, "bottom": 0.60})
    fill(tmp_path, {"top": 0.82, "bottom": 0.64}, seed=43)
    tables = {table.name.split("-")[0]: table for table in all_tables(read_results(tmp_path))}
    rows = {row[0]: row[1] for row in tables["scores"].rows}
    assert rows["top"] == "81.00 ± 1.41 (95.3 %)" and rows["bottom"] == "62.00 ± 2.83 (72.9 %)"
    assert "seeds 42, 43" in tables["scores"].note
    layers = {row[1]: row[3] for row in tables["layers"].rows}
    assert layers["top"] == "■■■■□□" and layers["bottom"] == "□□■■■■"
    assert ("tiny", "mrpc", "top", "0", "0", "0", "2") in tables["within"].rows
    assert any(row[2] == "19.20 M" and row[6] == "1.50×" for row in tables["cost"].rows)


@pytest.mark.parametrize(
    "bottom, examples, expected",
    [(0.60, 4000, SUPPORTED), (0.90, 4000, NOT_SUPPORTED), (0.795, 400, INCONCLUSIVE)],
    ids=["worse", "better", "alike"],
)
def test_a_verdict_goes_with_the_numbers_and_noise_is_no_difference(bottom, examples, expected, tmp_path):
    make_seeds(tmp_path, BY_POSITION["top"], 0.80, examples=examples)
    make_seeds(tmp_path, BY_POSITION["bottom"], bottom, examples=examples)
    found = verdict(tmp_path, 4)
    assert found.verdict == expected and f"bottom {100 * bottom:.2f}" in found.evidence


def test_one_undecided_cell_leaves_a_clear_claim_clear(tmp_path):
    for dropped, score in ((4, 5), 0.80), ((0, 1), 0.60), ((3, 4, 5), 0.700), ((0, 1, 2), 0.699):
        make_seeds(tmp_path, dropped, score, examples=4000)
    found = verdict(tmp_path, 4)
    assert found.verdict == SUPPORTED
    assert found.evidence.count(": for it") == 1 and found.evidence.count(": undecided") == 1


def test_one_seed_of_one_task_decides_nothing_and_says_why(tmp_path):
    fill(tmp_path, {"top": 0.80, "bottom": 0.60}, examples=40_000)
    found = verdict(tmp_path, 4)
    assert found.verdict == INCONCLUSIVE and "nobody knows how much training varies" in found.evidence


def test_robust_and_sensitive_tasks_are_told_apart(tmp_path):
    for task, lost in ("qqp", 0.01), ("mnli", 0.10):
        assert verdict(tmp_path, 6).verdict == NOT_TESTABLE
        make_seeds(tmp_path, (), 0.85, task=task, examples=40_000)
        make_seeds(tmp_path, (4, 5), 0.85 - lost, task=task, examples=40_000)
    assert verdict(tmp_path, 6).verdict == SUPPORTED


def test_claims_stand_in_a_report_only_where_runs_are_about_them(tmp_path):
    fill(tmp_path, {"top": 0.80, "bottom": 0.60}, task="custom")
    results = read_results(tmp_path)
    assert "claims" not in tables_of(tmp_path) and "The paper" not in page(results, tmp_path)
    asked = next(table for table in all_tables(results, claims=True) if table.name == "claims")
    assert len(asked.rows) == 12 and {row[2] for row in asked.rows} == {NOT_TESTABLE}
    assert "claim" in page(results, tmp_path, claims=True)
    fill(tmp_path, {"top": 0.80, "bottom": 0.60}, task="mrpc")
    assert [row[0] for row in tables_of(tmp_path)["claims"].rows] == ["2", "4", "10"]


def test_every_claim_has_a_verdict_and_what_cannot_be_tested_says_what_is_missing(tmp_path):
    make_record(tmp_path, (), 0.85)
    found = verdicts(read_results(tmp_path))
    assert [v.number for v in found] == list(range(1, 13))
    assert all(v.verdict == NOT_TESTABLE and "needs" in v.evidence for v in found)
    assert verdicts(read_results(tmp_path), every=False) == []


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.bad = [], [], []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append((tag, given))
        for name in ("src", "href"):
            if (given.get(name) or "").startswith(("http", "//")):
                self.links.append(given[name])
        if given.get("role") == "img" and not given.get("aria-label"):
            self.bad.append(tag)


def test_the_page_is_one_file_with_headings_headers_and_words_for_pictures(tmp_path):
    fill(tmp_path, {"top": 0.80, "bottom": 0.60})
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "record.json").write_text("{}")
    text = page(read_results(tmp_path), tmp_path)
    parsed = _Page()
    parsed.feed(text)
    tags = [tag for tag, _ in parsed.tags]
    assert parsed.links == [] and parsed.bad == []
    assert tags.count("h1") == 1 and tags.count("h2") >= 5 and tags.count("svg") == 4
    assert sum(tag == "th" and given.get("scope") == "col" for tag, given in parsed.tags) > 10
    assert ("html", {"lang": "en"}) in parsed.tags and "prefers-color-scheme: dark" in text
    assert "1 folder was ignored" in text
    assert "<script" not in text


def test_no_heading_stands_twice_on_the_page_and_notes_do_not_scroll_with_their_tables(tmp_path):
    fill(tmp_path, {"top": 0.80, "bottom": 0.60})
    for heal in HealSpec(epochs_before=3), HealSpec(drop_every=2), HealSpec(num_epochs=6):
        make_record(tmp_path, (4, 5), 0.82, heal=heal)
    text = page(read_results(tmp_path), tmp_path, claims=True)
    headings = re.findall(r"<h[123][^>]*>(.*?)</h", text)
    assert len(headings) == len(set(headings)) > 10
    assert "<caption" not in text and "drop every 2)" in " ".join(headings)


def test_markdown_and_latex_hold_the_same_cells(tmp_path):
    fill(tmp_path, {"top": 0.80, "bottom": 0.60})
    tables = all_tables(read_results(tmp_path))
    assert "| top | 80.00 (94.1 %) |" in markdown(tables)
    text = latex(tables)
    assert r"top & 80.00 (94.1 \%) \\" in text
    body = text.partition("\n")[2]
    assert not re.search(r"(?<!\\)[%#]", body), "what LaTeX would take for its own is escaped"
    for columns in re.findall(r"begin{longtable}{(.*)}", text):
        widths = [float(width) for width in re.findall(r"p{([\d.]+)\\linewidth}", columns)]
        assert sum(widths) + 0.01 * len(widths) <= 1, "a table is no wider than the page"


def test_a_name_from_a_models_folder_is_text_in_every_format(tmp_path):
    evil = '<img src=x onerror="alert(1)">|[a](javascript:b)\n# new'
    fill(tmp_path, {"top": 0.80}, name=evil)
    results = read_results(tmp_path)
    text = markdown(all_tables(results))
    assert "<img" not in text and "&lt;img src=x" in text and "\\[a\\](" in text
    assert all(not line.startswith("# new") for line in text.splitlines())
    assert "<img src=x" not in page(results, tmp_path)
    assert list(csv.reader(io.StringIO(comma_separated(results))))[1][1] == evil


def test_the_csv_is_one_tidy_table(tmp_path):
    import pandas

    fill(tmp_path, {"top": 0.80})
    make_record(tmp_path, (4, 5), -0.2, task="stsb", metric="pearson")
    frame = pandas.read_csv(io.StringIO(comma_separated(read_results(tmp_path))))
    assert len(frame) == 3 and frame["run"].is_unique
    assert frame.set_index(["task", "count"]).loc[("mrpc", 2), ["score", "full_score"]].tolist() == [0.80, 0.85]
    assert frame["score"].dtype == float and frame.query("task == 'stsb'")["retention"].isna().all()


def options_of(name):
    """Return the options of a sub-command as its real parser knows them."""
    import typer.main

    from depthprune.cli.main import app

    command = typer.main.get_command(app)
    return command.get_command(None, name)


def test_every_command_in_a_report_is_one_that_the_command_line_takes(tmp_path):
    recipes = [
        HealSpec(), HealSpec(weight_decay=0.01, precision="float32", similar_lengths=True), HealSpec(batch_size=8),
        HealSpec(epochs_before=3, freeze_dropped=True, freeze_layers=(0, 1, 2), freeze_embeddings=True),
        HealSpec(drop_every_steps=50), HealSpec(steps=parse_recipe("freeze(layers=0-1)+two-step"), teacher="sha256:00"),
    ]  # fmt: skip
    own = {"dataset": "my data.csv", "text_columns": ["a", "b"], "label_column": "kind", "eval_split": "test",
           "kind": "classification", "metric": "f1"}  # fmt: skip
    for heal in recipes:
        if heal == heal.for_full():
            make_record(tmp_path, (), 0.8, heal=heal, max_length=64, task="custom", options=own)
        make_record(tmp_path, (0, 5), 0.8, heal=heal, max_length=64, task="custom", options=own)
        make_record(tmp_path, (0, 5), 0.8, heal=heal, task="custom", name="old")
        make_record(tmp_path, (2, 3), 0.8, heal=heal, model="hub:org/name@0123", seed=7)
    for order in (4, 5), (5, 4):
        make_record(tmp_path, (4, 5), 0.8, heal=HealSpec(drop_every=1), order=order, seed=8)
    commands = [row[-1] for row in tables_of(tmp_path)["runs"].rows]
    assert len(commands) == len(read_results(tmp_path).runs) >= 20
    for line in commands:
        name, *words = shlex.split(line)[1:]
        with options_of(name).make_context(name, words) as context:
            assert context.params["task"] in ("custom", "mrpc")
    assert any(
        "--dataset 'my data.csv' --text-columns a,b --label-column kind --eval-split test" in c for c in commands
    )
    assert any(c.startswith("depthprune run org/name --task mrpc --layers 2-3") for c in commands)


@pytest.mark.parametrize("latency", [None, float("nan")])
def test_what_nobody_timed_is_said_to_be_unknown_and_breaks_nothing(latency, tmp_path):
    untimed = {"weight_bytes": 1, "full_parameters": 100, "full_latency_ms": latency, "latency_ms": latency}
    make_record(tmp_path, (), 0.9, profile={**untimed, "parameters": 100})
    make_record(tmp_path, (4, 5), 0.8, profile={**untimed, "parameters": 60})
    results = read_results(tmp_path)
    text = page(results, tmp_path)
    assert "nobody timed it" in text and "nan" not in text.lower().replace("nano", "")
    assert [row[5:7] for row in tables_of(tmp_path)["cost"].rows] == [("n/a", "1.00×"), ("n/a", "n/a")]
    assert [row[6] for row in tables_of(tmp_path)["answer"].rows] == ["n/a (n/a)"]
    assert ",nan," not in comma_separated(results).lower()


def test_an_older_record_is_compared_with_one_that_says_more(tmp_path):
    make_record(tmp_path, (), 0.9)
    digest = make_record(tmp_path, (4, 5), 0.8)
    record = json.loads((tmp_path / digest / "record.json").read_text())
    for name in ("outputs", "metric"):
        record["spec"]["evaluation"].pop(name, None)  # as it was before a spec could say so
    (tmp_path / digest / "record.json").write_text(json.dumps(record))
    assert [run.full_score for run in read_results(tmp_path).runs] == [0.9, 0.9]


def test_runs_of_other_data_or_lengths_are_entries_of_their_own_in_every_table(tmp_path):
    for seed, more in enumerate([{}, {"max_length": 64}, {"data": "sha256:fedcba98"}]):
        for dropped, score in ((), 0.90 - 0.1 * seed), ((4, 5), 0.80 - 0.1 * seed):
            make_record(tmp_path, dropped, score, seed=seed, **more)
    tables = all_tables(read_results(tmp_path))
    scores = {table.title: table.rows for table in tables if table.name.startswith("scores-")}
    assert sorted(row for rows in scores.values() for row in rows if row[0] == "top") == [
        ("top", "60.00 (85.7 %)"), ("top", "70.00 (87.5 %)"), ("top", "80.00 (88.9 %)"),
    ]  # fmt: skip
    assert sorted(title.partition(" (")[2].partition(")")[0] for title in scores) == [
        "data fedcba", "data rows", "max length 64, data rows",
    ]  # fmt: skip
    for table in tables:
        if table.name in ("answer", "within", "cost", "robustness", "runs"):
            assert any("max length 64" in " ".join(row) for row in table.rows), table.name
            assert any("data fedcba" in " ".join(row) for row in table.rows), table.name
        assert "±" not in " ".join(cell for row in table.rows for cell in row), f"{table.name} averages them"


def test_layers_that_a_strategy_chose_otherwise_are_an_entry_of_their_own(tmp_path):
    for seed, dropped in enumerate([(1, 3), (1, 3), (2, 3)]):
        make_record(tmp_path, dropped, 0.8 - 0.1 * (dropped == (2, 3)), seed=seed, strategies=("contribution",))
    (table,) = [table for name, table in tables_of(tmp_path).items() if name.startswith("scores-")]
    rows = dict(table.rows)
    assert rows["contribution"] == "80.00 ± 0.00" and rows["contribution (layers 2-3)"] == "70.00"


def test_the_answer_comes_first_with_checkpoint_hardware_and_milliseconds(tmp_path):
    for seed in range(2):
        fill(tmp_path, {"top": 0.845, "bottom": 0.60}, seed=seed)
        make_record(tmp_path, (5,), 0.86, seed=seed)
    results = read_results(tmp_path)
    kept = next(run for run in results.runs if run.dropped == (4, 5))
    (kept.folder / "model" / "config.json").write_text("{}")
    results = read_results(tmp_path)
    first = sections(results, tmp_path)[0]
    ((head, *rest),) = first.lead
    line = " ".join(rest)
    assert first.anchor == "answer" and head == "Drop layers 4-5 of tiny for mrpc (K = 2 of 6; top)."
    assert "Accuracy 84.50 ± 0.00 over 2 seeds, the full model 85.00" in line and "-0.50 (95 %: " in line
    assert "4.00 ms an example instead of 6.00" in line and str(kept.folder / "model") in line
    (chosen,) = sections(results, tmp_path, chosen=next(r.digest for r in results.runs if r.count == 1))[0].lead
    assert chosen[0].startswith("Drop layer 5 of tiny") and "depthprune run MODEL --task mrpc --layers 5" in chosen[-1]


def test_where_nothing_is_within_a_point_the_answer_says_so(tmp_path):
    fill(tmp_path, {"top": 0.80, "bottom": 0.60})
    ((line, *_),) = sections(read_results(tmp_path), tmp_path)[0].lead
    assert line.startswith("No plan that was tried is within the bound. The closest drops layers 4-5 of tiny")
    make_record(tmp_path, (5,), 0.85)
    results = read_results(tmp_path)
    full = next(run.digest for run in results.runs if not run.dropped)
    starts = [sections(results, tmp_path, chosen=each)[0].lead[0][0].split(" ")[0] for each in (None, full)]
    assert starts == ["Drop", "No"], "a search whose bound nothing meets says that it is the full model"


@pytest.mark.parametrize("name", ["report.pdf", "report", "report.docx"])
def test_an_ending_that_no_report_has_is_refused_in_a_line(name, tmp_path):
    from depthprune.reporting.written import check_page, format_of

    with pytest.raises(UserError, match=r"\.html, \.htm, \.md, \.csv, \.tex"):
        format_of(tmp_path / name)
    assert format_of(tmp_path / "a.HTML") == "html" and format_of(None) == "markdown"
    with pytest.raises(UserError, match="no PDF"):
        format_of(tmp_path / "a.pdf", "latex")
    with pytest.raises(UserError, match=r"is not a page; end it in \.html"):
        check_page(tmp_path / name)


def test_ten_thousand_records_take_seconds_and_no_torch(tmp_path):
    first = make_record(tmp_path, (4, 5), 0.8)
    record = json.loads((tmp_path / first / "record.json").read_text())
    for i in range(10_000):
        record["spec"]["seed"] = i
        record["outcome"]["plan"]["dropped"] = record["spec"]["drop"]["dropped"] = [i % 6]
        folder = tmp_path / f"{i:012x}"
        folder.mkdir()
        (folder / "record.json").write_text(json.dumps(record))
    code = (
        "import sys; from pathlib import Path; from depthprune.reporting.results import read_results;"
        "from depthprune.reporting.page import page; from depthprune.cli.live import status_lines;"
        "from depthprune.experiments.store.store import Store;"
        f"root = Path({str(tmp_path)!r}); list(status_lines(Store(root))); print(len(page(read_results(root), root)));"
        "assert 'torch' not in sys.modules"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 60, "an order above the aim: this machine may be busy"


def sweep_row(root, digest, **more):
    row = {"model": "tiny", "task": "mrpc", "strategy": "top", "count": 2, "seed": 42, "recipe": "r", "digest": digest}
    (root / "sweeps").mkdir(exist_ok=True)
    (root / "sweeps" / f"{digest}.json").write_text(json.dumps({"rows": [{**row, **more}], "skipped": []}))


def tables_of(root):
    return {table.name: table for table in all_tables(read_results(root))}


def test_recipes_stand_side_by_side_and_are_compared_with_one_full_model(tmp_path):
    fill(tmp_path, {"top": 0.80})
    assert "recipes" not in tables_of(tmp_path)
    make_record(tmp_path, (4, 5), 0.82, heal=HealSpec(epochs_before=3, freeze_dropped=True))
    make_record(tmp_path, (0, 1), 0.70, heal=HealSpec(drop_every=2))
    make_record(tmp_path, (), 0.85, seed=43)
    make_record(tmp_path, (4, 5), 0.60, seed=43)  # of one recipe alone: it would pull that one down
    sweep_row(tmp_path, make_record(tmp_path, (4, 5), 0.81, heal=HealSpec(drop_every=2)))
    results = read_results(tmp_path)
    assert all(run.full_score == 0.85 for run in results.runs), "how layers go is nothing to the full model"
    table = tables_of(tmp_path)["recipes"]
    ((model, task, strategies, dropped, *scores),) = table.rows
    assert (model, task, dropped) == ("tiny", "mrpc", "4-5") and "top" in strategies
    assert sorted(scores) == ["80.00", "81.00", "82.00"]
    assert "epochs before 3, freeze dropped" in table.note and "drop every 2" in table.note
    commands = [row[-1] for row in tables_of(tmp_path)["runs"].rows]
    assert any("--epochs-before 3 --freeze-dropped" in command for command in commands)
    assert any("--layers 4-5 --epochs 3" in c and "--drop-every 2" in c for c in commands)


def test_a_baseline_stands_beside_the_best_pruned_model_of_its_size(tmp_path):
    fill(tmp_path, {"top": 0.80, "odd-alternate": 0.82})
    make_record(tmp_path, (5,), 0.84)  # larger than the baseline
    student = make_record(
        tmp_path, (), 0.81, depth=3, model="sha256:" + "b" * 64, name="model", parameters=(18_000_000, 1_800_000)
    )
    sweep_row(tmp_path, student, model="student", strategy="baseline", count=0)
    rows = tables_of(tmp_path)["baselines"].rows
    assert [(*row[1:3], row[4]) for row in rows] == [
        ("student", "baseline", "81.00"), ("tiny", "odd-alternate, 2 dropped", "82.00")
    ]  # fmt: skip
    assert rows[1][5].startswith("+1.00 (") and rows[1][6:8] == ("19.2 M", "29 MB")
    assert "'student' and 'model' are one model" in read_results(tmp_path).notes


def test_a_distilled_model_of_another_store_stands_beside_the_plain_and_the_healed_cut_of_its_size(tmp_path):
    first, second = tmp_path / "cuts", tmp_path / "distilled"
    healed = HealSpec(steps=parse_recipe("distill(alpha=0.9)"))
    for seed in (1, 2):
        make_record(first, (), 0.85, seed=seed)
        make_record(first, (4, 5), 0.80, seed=seed)
        make_record(first, (4, 5), 0.83, seed=seed, heal=healed)
        make_record(second, (), 0.81, seed=seed, depth=3, model="sha256:" + "c" * 64, name="MiniLM-L3",
                    model_type="bert", parameters=(18_000_000, 1_800_000))  # fmt: skip
    (first / "notes").mkdir()
    (first / "notes" / "record.json").write_text("{")

    results = read_results(first, second, first)

    (table,) = [table for table in all_tables(results) if table.name == "baselines"]
    assert [(*row[1:3], row[4]) for row in table.rows] == [
        ("MiniLM-L3", "distilled", "81.00 ± 0.00"),
        ("tiny", "top, 2 dropped", "80.00 ± 0.00"),
        ("tiny", "top, 2 dropped", "83.00 ± 0.00"),
    ]
    assert "heal distill" in table.rows[2][3] and table.rows[2][3].endswith("; 2 seeds")
    assert len(results.runs) == 8 and "cuts/notes" in results.foreign
    assert all(table.name != "baselines" for table in all_tables(read_results(second))), "it stands alone"


def test_what_a_search_chose_before_healing_stands_beside_what_healing_makes_of_it_and_of_others(tmp_path):
    def search(method, plans, **more):
        content = {"format": "depthprune-search/1", "model": {"name": "tiny", "identity": "sha256:" + "a" * 64},
                   "stack": "layers", "depth": 6, "method": method, "objective": {"name": "kl", "unit": "nats"},
                   "full": 0.0, "plans": plans, "calibration": {"data": "mrpc"}, "settings": {}, "trials": 8,
                   "seconds": 1.0, "environment": {}, **more}  # fmt: skip
        file = tmp_path / "scores" / f"search-{method}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
        return file

    healed = HealSpec(steps=parse_recipe("distill(alpha=0.9)"))
    for seed in (1, 2):
        make_record(tmp_path, (), 0.85, seed=seed)
        for dropped, score in ((1, 2), 0.80), ((4, 5), 0.82), ((0, 1), 0.70):
            make_record(tmp_path, dropped, score, seed=seed, strategies=("greedy",) if dropped == (1, 2) else ())
        make_record(tmp_path, (1, 2), 0.84, seed=seed, heal=healed)
    make_record(tmp_path, (5,), 0.84)  # of a count that nobody searched
    make_record(tmp_path, (1, 2), 0.75, heal=HealSpec(num_epochs=0))
    make_record(tmp_path, (4, 5), 0.33, heal=HealSpec(num_epochs=0), fresh_tensors=["classifier.weight"])
    assert "before-healing" in tables_of(tmp_path), "a strategy of a run is enough"
    file = search("greedy", {"2": {"dropped": [1, 2], "value": 0.25}})
    entries = [{"dropped": [4, 5], "value": 0.5, "fraction": 1}, {"dropped": [0, 1], "value": 9, "fraction": 0.5}]
    file.with_suffix(".trace.jsonl").write_text("\n".join(["{}", *map(json.dumps, entries)]))
    search("exhaustive", {"2": {"dropped": [2, 3], "value": 0.2}})
    search("beam", {"2": {"dropped": [0, 3], "value": 0.2}}, format="another")

    rows = tables_of(tmp_path)["before-healing"].rows

    assert [row[2:] for row in rows] == [
        ("2", "greedy", "1-2", "0.25 (kl nats)", "75.00", "80.00 ± 0.00", "84.00 ± 0.00"),
        ("2", "exhaustive", "2-3", "0.2 (kl nats)", "–", "–", "–"),
        ("2", "top", "4-5", "0.5 (kl nats)", "–", "82.00 ± 0.00", "–"),
        ("2", "bottom", "0-1", "–", "–", "70.00 ± 0.00", "–"),
    ]


def test_several_stores_are_reported_as_one(tmp_path):
    for name, score in ("one", 0.80), ("two", 0.70):
        make_record(tmp_path / name, (5,), score, model=f"sha256:{name}", name=name)
    stores = [tmp_path / "one", str(tmp_path / "two")]

    text = depthprune.report(stores)

    assert text.count("depthprune run") == 2 and depthprune.report(tuple(stores), tmp_path / "both.md") == text
    with pytest.raises(UserError, match=r"there is no store '.*three'; give the folder"):
        depthprune.report([tmp_path / "one", tmp_path / "three"])
    with pytest.raises(UserError, match="no store is given"):
        depthprune.report([])
    assert "records in “one, two”" in page(read_results(*map(Path, stores)), *map(Path, stores))


def test_a_store_of_analyses_alone_has_a_report(tmp_path):
    (tmp_path / "analyses").mkdir()
    one = {"name": "tiny", "identity": "sha256:x", "model_type": "bert", "depth": 2}
    content = {"kind": "probe", "model": one, "before": None, "task": "mrpc", "metric": "accuracy", "token": "first",
               "values": [0.5, 0.6, 0.7], "examples": {"train": 5, "evaluation": 5}, "seed": 1}  # fmt: skip
    (tmp_path / "analyses" / "probe-1.json").write_text(json.dumps(content))
    assert "1 analyses of layers; no runs." in page(read_results(tmp_path), tmp_path)


def test_the_average_is_over_what_all_tasks_have(tmp_path):
    for seed, more in ((42, 0.0), (43, 0.02)):
        fill(tmp_path, {"top": 0.80 + more, "bottom": 0.60}, seed=seed)
        fill(tmp_path, {"top": 0.70 + more}, seed=seed, task="rte")
    tables = {name: table for name, table in tables_of(tmp_path).items() if "average" in name}
    ((name, table),) = tables.items()
    assert name.startswith("scores-average-") and table.title.startswith("tiny on average over mrpc, rte")
    assert [row for row in table.rows if row[0] == "top"] == [("top", "76.00 ± 1.41 (89.4 %)")]
    assert "bottom" not in [row[0] for row in table.rows], "rte was not run with it"
    assert "tiny on average over mrpc, rte" in page(read_results(tmp_path), tmp_path)


def test_the_front_is_that_of_parameters_and_that_of_speed(tmp_path):
    profile = {"weight_bytes": 1, "full_parameters": 100, "full_latency_ms": 6.0}
    small = {**profile, "parameters": 60, "latency_ms": 5.0}
    quick = {**profile, "parameters": 70, "latency_ms": 3.0}
    make_record(tmp_path, (), 0.9)
    make_record(tmp_path, (4, 5), 0.80, profile=small)
    make_record(tmp_path, (0, 1), 0.70, profile=quick)
    runs = [run for run in read_results(tmp_path).runs if run.dropped]
    assert [run.dropped for run in pareto_front(runs)] == [(4, 5)]
    assert [run.dropped for run in pareto_front(runs, slowness)] == [(0, 1), (4, 5)]
