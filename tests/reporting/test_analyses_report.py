"""Analyses in the report: tables, the paper's curves beside ours, and files that are none of ours."""

import json
from pathlib import Path

import pytest

from depthprune.reporting.analyses import PAPER_COSINE, PAPER_PROBE, analysis_tables, read_analyses
from depthprune.reporting.page import page
from depthprune.reporting.results import read_results
from depthprune.reporting.tables.tables import all_tables
from made_records import make_record


def write(root: Path, kind: str, name: str, values: list[float], before: str | None = None, **more) -> Path:
    def model(called):
        return {"name": called, "identity": "sha256:a", "model_type": "bert", "depth": len(values) - 1}

    content = {
        "kind": kind, "model": model(name), "before": model(before) if before else None, "task": "mrpc",
        "metric": "accuracy" if kind == "probe" else "cosine", "token": "first", "values": values,
        "examples": {"train": 3668 if kind == "probe" else 0, "evaluation": 408}, "seed": 42, "environment": {},
    } | more  # fmt: skip
    folder = root / "analyses"
    folder.mkdir(exist_ok=True)
    file = folder / f"{kind}-{len(list(folder.iterdir())):012x}.json"
    file.write_text(json.dumps(content))
    return file


def rows_of(tables, name):
    return {row[0]: row[1:] for row in next(table for table in tables if table.name == name).rows}


def test_the_tables_have_a_row_an_analysis_and_a_column_a_layer(tmp_path):
    write(tmp_path, "probe", "deep", [0.684, 0.7, 0.8123])
    write(tmp_path, "probe", "shallow", [0.5, 0.6], task="rte", token="last")
    write(tmp_path, "similarity", "deep fine-tuned on mrpc", [1.0, 0.8749, 0.25], before="deep")
    found, foreign = read_analyses(tmp_path)

    tables = analysis_tables(found)

    assert foreign == () and [table.name for table in tables] == ["probes", "similarities"]
    assert tables[0].headings == ("model", "task", "metric", "token", "training / scored rows", "0", "1", "2")
    assert rows_of(tables, "probes") == {
        "deep": ("mrpc", "accuracy", "first", "3668 / 408", "68.4", "70.0", "81.2"),
        "shallow": ("rte", "accuracy", "last", "3668 / 408", "50.0", "60.0", "–"),
    }
    assert rows_of(tables, "similarities") == {
        "deep against deep fine-tuned on mrpc": ("mrpc", "cosine", "first", "408", "1.00", "0.87", "0.25")
    }
    assert "paper" not in tables[0].note


def test_the_papers_curve_stands_once_beside_a_model_that_it_has(tmp_path):
    for task in ("mrpc", "rte"):
        write(tmp_path, "probe", f"google-bert/bert-base-cased fine-tuned on {task}", [0.5] * 13, task=task)
    write(tmp_path, "probe", "bert-base-cased without layers 8-11 fine-tuned on mrpc", [0.5] * 9)
    write(tmp_path, "probe", "roberta-base", [0.5] * 13)
    write(tmp_path, "similarity", "xlnet-mrpc", [0.5] * 13, before="xlnet-base-cased")

    tables = analysis_tables(read_analyses(tmp_path)[0])

    names = [row[0] for row in tables[0].rows]
    assert [name for name in names if "paper" in name] == ["bert-base-cased, read off the paper's chart"]
    assert names.index("bert-base-cased, read off the paper's chart") > names.index(
        "google-bert/bert-base-cased fine-tuned on rte"
    )
    assert rows_of(tables, "probes")["bert-base-cased, read off the paper's chart"][4:7] == ("50.0", "63.0", "65.0")
    assert rows_of(tables, "similarities")["xlnet-base-cased, read off the paper's chart"][-1] == "0.49"
    assert all(len(curve) == 13 for curve in (*PAPER_PROBE.values(), *PAPER_COSINE.values()))
    assert all("±0.01" in table.note for table in tables)


BROKEN = {
    "not JSON": "{",
    "not an object": "[]",
    "without a model": {"model": None},
    "with words for values": {"values": ["a", "b"]},
    "with values that are no numbers": {"values": [0.5, float("nan"), 0.5]},
    "with too few values": {"values": [0.5]},
    "of an unknown kind": {"kind": "guess"},
    "a similarity without a model before": {"kind": "similarity"},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=list(BROKEN))
def test_a_broken_or_foreign_file_is_named_left_alone_and_counted(change, tmp_path):
    make_record(tmp_path, (), 0.8)
    good, bad = (write(tmp_path, "probe", "tiny", [0.5, 0.6, 0.7]) for _ in range(2))
    bad.write_text(change if isinstance(change, str) else json.dumps(json.loads(bad.read_text()) | change))
    (tmp_path / "analyses" / "notes.txt").write_text("mine")
    (tmp_path / "analyses" / f"{good.name}.1.partial").write_text("{")
    before = bad.read_text()

    results = read_results(tmp_path)

    assert len(results.analyses) == 1 and len(results.runs) == 1
    assert results.foreign == ("analyses/notes.txt", f"analyses/{bad.name}")
    assert bad.read_text() == before
    text = page(results, tmp_path)
    assert f"2 files were ignored, since they are not analyses: analyses/notes.txt, analyses/{bad.name}" in text
    assert "since they are not runs" not in text and "since it is not a run" not in text


def test_the_page_has_a_section_with_charts_in_words(tmp_path):
    make_record(tmp_path, (), 0.8)
    without = page(read_results(tmp_path), tmp_path)
    write(tmp_path, "probe", "bert-base-cased fine-tuned on mrpc", [0.5 + i / 50 for i in range(13)])
    write(tmp_path, "similarity", "small tuned", [1.0, 0.75], before="small")

    results = read_results(tmp_path)
    text = page(results, tmp_path)

    heading = "What each layer encodes, and what fine-tuning changed"
    assert heading in text and heading not in without
    assert text.count("<svg") == without.count("<svg") + 2
    assert "bert-base-cased fine-tuned on mrpc, mrpc, first token: 50.0, 52.0, 54.0" in text
    assert "read off the paper&#39;s chart: 50.0, 63.0" in text
    assert "small against small tuned, mrpc, first token: 1.00, 0.75" in text
    assert {"probes", "similarities"} <= {table.name for table in all_tables(results)}
