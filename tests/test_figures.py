"""The figures of the docs are those that their command draws from the records and numbers beside them."""

import importlib.util
import re
from html import unescape
from pathlib import Path

import pytest

from depthprune.plan import LayerPlan

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
FIGURES = RESULTS / "figures"
CREATOR = re.compile(r"<dc:title>(Matplotlib v[\d.]+)")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("docs_figures", RESULTS / "figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_figures_of_the_docs_are_what_make_figures_draws(script, tmp_path):
    written = script.draw(tmp_path)
    assert {file.name for file in written} == {file.name for file in FIGURES.iterdir()} and len(written) >= 6
    for file in written:
        drawn, kept = (path.read_text(encoding="utf-8") for path in (file, FIGURES / file.name))
        # Places differ a little between versions of matplotlib; what is written and described does not.
        assert words_of(drawn) == words_of(kept), f"{file.name} is of other numbers; run: make figures"
        if CREATOR.findall(drawn) == CREATOR.findall(kept):
            assert drawn == kept, f"{file.name} is drawn otherwise by now; run: make figures"


def words_of(svg: str) -> list[str]:
    """Return the texts of a figure and its description, which holds all its numbers."""
    found = re.findall(r"<(?:text|dc:description)[^>]*>([^<]*)</", svg)
    assert len(found) > 10
    return [unescape(text) for text in found]


def test_every_number_without_a_record_stands_in_the_docs(script):
    pages = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "docs").rglob("*.md"))
    rows = script.rows_of(RESULTS / "measured.csv")
    assert len(rows) >= 28
    for row in rows:
        assert row["score"] in pages and row["full"] in pages, row


def test_what_a_figure_calls_a_strategy_is_the_layers_that_it_drops(script):
    from depthprune.strategies import same_choice

    some = [kept for kept in script.read() if set(kept.strategies) & {"top", "bottom", "symmetric", "odd-alternate"}]
    assert len(some) > 20
    for kept in some:
        assert set(kept.strategies) & set(same_choice(LayerPlan(kept.depth, kept.dropped))), kept


def test_the_readme_and_the_page_of_results_show_each_figure_in_both_schemes(script):
    shown = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "docs/results.md").read_text(encoding="utf-8")
    names = set(re.findall(r"results/figures/([\w-]+)-light\.svg", shown))
    assert names == set(re.findall(r"results/figures/([\w-]+)-dark\.svg", shown))
    assert names == {file.name.removesuffix("-light.svg") for file in FIGURES.glob("*-light.svg")}
