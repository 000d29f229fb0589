"""The report: every table and format, verdicts that can go either way, ten thousand records in seconds."""

import csv
import io
import json
import re
import subprocess
import sys
import time
from html.parser import HTMLParser

import pytest

from depthprune.report.charts import pareto_front, slowness
from depthprune.report.claims import NOT_SUPPORTED, NOT_TESTABLE, SUPPORTED, verdicts
from depthprune.report.formats import comma_separated, latex, markdown
from depthprune.report.page import page
from depthprune.report.results import read_results
from depthprune.report.tables import all_tables
from depthprune.specs import HealSpec
from made_records import make_record

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
    assert any(row[2] == "19.20 M" and row[5] == "1.50×" for row in tables["cost"].rows)


@pytest.mark.parametrize(
    "bottom, expected",
    [(0.60, SUPPORTED), (0.90, NOT_SUPPORTED), (0.795, NOT_TESTABLE)],
    ids=["worse", "better", "alike"],
)
def test_a_verdict_goes_with_the_numbers_and_noise_is_no_difference(bottom, expected, tmp_path):
    fill(tmp_path, {"top": 0.80, "bottom": bottom})
    found = verdict(tmp_path, 4)
    assert found.verdict == expected and f"bottom {100 * bottom:.2f}" in found.evidence


@pytest.mark.parametrize("top, expected", [(0.84, SUPPORTED), (0.80, NOT_SUPPORTED)])
def test_a_third_of_the_layers_is_safe_or_it_is_not(top, expected, tmp_path):
    fill(tmp_path, {"top": top})
    assert verdict(tmp_path, 10).verdict == expected


def test_robust_and_sensitive_tasks_are_told_apart(tmp_path):
    fill(tmp_path, {"top": 0.84}, task="qqp")
    assert verdict(tmp_path, 6).verdict == NOT_TESTABLE
    fill(tmp_path, {"top": 0.75}, task="mnli")
    assert verdict(tmp_path, 6).verdict == SUPPORTED


def test_every_claim_has_a_verdict_and_what_cannot_be_tested_says_what_is_missing(tmp_path):
    make_record(tmp_path, (), 0.85)
    found = verdicts(read_results(tmp_path))
    assert [v.number for v in found] == list(range(1, 13))
    assert all(v.verdict == NOT_TESTABLE and "needs" in v.evidence for v in found)


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
    assert tags.count("h1") == 1 and tags.count("h2") >= 5 and tags.count("svg") == 2
    assert sum(tag == "th" and given.get("scope") == "col" for tag, given in parsed.tags) > 10
    assert ("html", {"lang": "en"}) in parsed.tags and "prefers-color-scheme: dark" in text
    assert "1 folder was left alone" in text
    assert "<script" not in text


def test_markdown_csv_and_latex_hold_the_same_cells(tmp_path):
    fill(tmp_path, {"top": 0.80, "bottom": 0.60})
    tables = all_tables(read_results(tmp_path))
    assert "| top | 80.00 (94.1 %) |" in markdown(tables)
    rows = list(csv.reader(io.StringIO(comma_separated(tables))))
    assert any(row[1:3] == ["top", "80.00 (94.1 %)"] for row in rows)
    assert r"top & 80.00 (94.1 \%) \\" in latex(tables)
    assert not re.search(r"(?<!\\)[%#]", latex(tables)), "what LaTeX would take for its own is escaped"


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
        "import sys; from pathlib import Path; from depthprune.report.results import read_results;"
        "from depthprune.report.page import page; from depthprune.cli.live import status_lines;"
        "from depthprune.experiments.store import Store;"
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
    assert any("--strategy top --count 2 --epochs 3" in c and "--drop-every 2" in c for c in commands)


def test_a_baseline_stands_beside_the_best_pruned_model_of_its_size(tmp_path):
    fill(tmp_path, {"top": 0.80, "odd-alternate": 0.82})
    make_record(tmp_path, (5,), 0.84)  # larger than the baseline
    student = make_record(
        tmp_path, (), 0.81, depth=3, model="sha256:" + "b" * 64, name="model", parameters=(19_000_000, 1_800_000)
    )
    sweep_row(tmp_path, student, model="student", strategy="baseline", count=0)
    rows = tables_of(tmp_path)["baselines"].rows
    assert [row[1:4] for row in rows] == [
        ("student", "baseline", "81.00"), ("tiny", "odd-alternate, 2 dropped", "82.00")
    ]  # fmt: skip
    assert "'student' and 'model' are one model" in read_results(tmp_path).notes


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
