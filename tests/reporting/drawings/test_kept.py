"""Figures of what models keep: one line a model and recipe, the layers of each strategy, in two schemes."""

import re

from depthprune.healing.recipe import parse_recipe
from depthprune.reporting.drawings.canvas import DARK, LIGHT, as_svg
from depthprune.reporting.drawings.kept import depth_panels, layers_panel, lines_of, speed_panels
from depthprune.reporting.kept import Kept, all_kept, common_strategy, counts_shown, in_words
from depthprune.reporting.page import sections
from depthprune.reporting.results import read_results
from depthprune.specs import HealSpec
from made_records import make_record

TOP = {2: (4, 5), 3: (3, 4, 5)}
HEALED = "distill(alpha=0.9)"


def fill(root, **more):
    """Write the runs of a full model, two cuts from the top, one of them healed in another way too, and one bottom."""
    make_record(root, (), 0.8, **more)
    make_record(root, TOP[2], 0.76, **more)
    make_record(root, TOP[3], 0.64, **more)
    make_record(root, (0, 1), 0.4, **more)
    make_record(root, TOP[3], 0.72, heal=HealSpec(steps=parse_recipe(HEALED)), **more)


def texts(figure) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", as_svg(figure))


def test_a_line_is_of_one_model_recipe_and_strategy_and_not_the_best_of_several(tmp_path):
    fill(tmp_path)
    make_record(tmp_path, (0, 2, 4), 0.8)  # better than top at the same depth
    lines = lines_of(all_kept(read_results(tmp_path)))
    drawn = {key: [(kept.count, round(kept.share, 3)) for kept in line] for key, line in lines.items()}
    assert drawn == {("tiny", "plain fine-tuning"): [(2, 0.95), (3, 0.8)], ("tiny", HEALED): [(3, 0.9)]}


def test_the_mean_and_spread_over_seeds_are_what_is_kept(tmp_path):
    for seed, score in ((1, 0.6), (2, 0.7)):
        make_record(tmp_path, (), 0.8, seed=seed)
        make_record(tmp_path, TOP[3], score, seed=seed)
    (kept,) = all_kept(read_results(tmp_path))
    assert round(kept.share, 4) == 0.8125 and round(kept.spread, 4) == 0.0884 and kept.seeds == 2
    assert kept.speedup == 2.0


def test_two_recipes_of_one_name_are_not_averaged(tmp_path):
    for rate in (1e-5, 2e-5):
        heal = HealSpec(learning_rate=rate)
        make_record(tmp_path, (), 0.8, heal=heal)
        make_record(tmp_path, TOP[3], 0.4 if rate == 1e-5 else 0.6, heal=heal)
    shares = {kept.recipe: kept.share for kept in all_kept(read_results(tmp_path))}
    assert sorted(shares.values()) == [0.5, 0.7499999999999999] and all("learning rate" in name for name in shares)


def test_two_models_of_one_name_are_two_lines(tmp_path):
    fill(tmp_path)
    fill(tmp_path, model="sha256:" + "b" * 64)
    lines = lines_of(all_kept(read_results(tmp_path)))
    assert {model for model, _ in lines} == {"tiny (aaaaaa)", "tiny (bbbbbb)"}


def test_the_depth_figure_names_models_recipes_tasks_and_where_each_line_ends(tmp_path):
    fill(tmp_path)
    fill(tmp_path, task="rte", model="sha256:" + "b" * 64, name="other")
    drawn = texts(depth_panels(all_kept(read_results(tmp_path))))
    assert {"mrpc", "rte", "tiny", "other", "plain fine-tuning", HEALED, "layers dropped, of 6"} <= set(drawn)
    assert {"80.0", "90.0"} <= set(drawn)


def test_models_of_different_depths_share_an_axis_of_shares():
    some = [
        Kept("a", "mrpc", "plain", ("top",), 6, (3, 4, 5), 0.9),
        Kept("b", "mrpc", "plain", ("top",), 12, (11,), 1.0),
    ]
    drawn = texts(depth_panels(some))
    assert "layers dropped, %" in drawn and {"0", "8", "50"} <= set(drawn)


def test_the_speed_figure_leaves_out_what_nobody_timed(tmp_path):
    fill(tmp_path)
    make_record(tmp_path, (2, 3, 4, 5), 0.1, profile={"parameters": 1, "full_parameters": 2, "weight_bytes": 4})
    drawn = texts(speed_panels(all_kept(read_results(tmp_path))))
    assert "2.00×" in "".join(drawn) and "K = 3" in drawn and "K = 4" not in drawn


def test_the_layers_figure_has_a_row_a_plan_the_best_first_with_its_shares(tmp_path):
    fill(tmp_path)
    some = [kept for kept in all_kept(read_results(tmp_path)) if kept.recipe != HEALED]
    drawn = texts(layers_panel(some))
    names = [text for text in drawn if text in ("top", "bottom")]
    assert names == ["top", "bottom", "top"]
    assert {"2 dropped", "3 dropped", "95.0", "50.0", "80.0"} <= set(drawn)


def test_of_many_counts_those_of_the_paper_are_drawn():
    some = [Kept("a", "mrpc", "plain", ("top",), 12, tuple(range(12 - k, 12)), 0.9) for k in (1, 2, 3, 4, 5, 6, 11)]
    assert counts_shown(some) == [2, 4, 6]


def test_a_tie_between_strategies_goes_to_the_one_that_has_more_points_on_other_tasks():
    some = [Kept("a", "mrpc", "plain", (name,), 6, dropped, 0.9) for name, dropped in (("bottom", (0,)), ("top", (5,)))]
    more = Kept("a", "rte", "plain", ("top",), 6, (5,), 0.9)
    assert common_strategy(some) == "bottom" and common_strategy(some, [*some, more]) == "top"


def test_a_dark_figure_differs_in_colours_alone(tmp_path):
    fill(tmp_path)
    some = all_kept(read_results(tmp_path))
    for drawing in (depth_panels, layers_panel, speed_panels):
        light, dark = drawing(some, scheme=LIGHT), drawing(some, scheme=DARK)
        assert texts(light) == texts(dark)
        assert DARK.paper in as_svg(dark) and DARK.paper not in as_svg(light)


def test_the_page_has_the_figures_with_words_where_there_is_something_to_compare(tmp_path):
    make_record(tmp_path / "few", (), 0.8)
    make_record(tmp_path / "few", TOP[3], 0.64)
    fill(tmp_path / "many")
    before, after = captions(tmp_path / "few"), captions(tmp_path / "many")
    assert not any(words in caption for caption in before for words in ("A line is of one", "Layers kept"))
    assert sum("A line is of one strategy" in caption for caption in after) == 1
    assert sum(caption.startswith("Layers kept") for caption in after) == 1
    assert "tiny, mrpc, plain fine-tuning, top: without layers 4-5 of 6 95.0 %" in in_words(
        all_kept(read_results(tmp_path / "many"))
    )


def captions(root) -> list[str]:
    return [figure.caption for section in sections(read_results(root), root) for figure in section.figures]
