"""The drawings of a report, as SVG."""

import re
from itertools import combinations

from depthprune.reporting.drawings.charts import pareto_chart
from depthprune.reporting.results import read_results
from made_records import make_record

LABEL = re.compile(r'<text style="font-size: 8px[^>]* fill: #[^>]*? x="([\d.]+)" y="([\d.]+)"[^>]*>([\d,-]+|full)<')


def test_labels_of_the_front_do_not_touch_however_near_its_points_are(tmp_path):
    scores = {0: 0.9, 4: 0.8999, 5: 0.8998, 6: 0.8997, 7: 0.8996, 8: 0.5}
    for n, (count, score) in enumerate(scores.items()):
        plan = tuple(sorted((0, 2, 4, 6, 8, 10, 11, 9)[:count]))
        profile = {"weight_bytes": 1, "full_parameters": 100, "parameters": 100 - (15 * n if n < 5 else 100)}
        make_record(tmp_path, plan, score, depth=12, profile=profile)

    drawn = pareto_chart(read_results(tmp_path).runs, "parameters")

    labels = [(float(x), float(y), text) for x, y, text in LABEL.findall(drawn)]
    assert len(labels) == len(scores)
    assert [pair for pair in combinations(labels, 2) if touch(*pair)] == []


def touch(one, other):
    """Tell whether two labels of 8 px touch: digits and commas are about half as wide as they are high."""
    (x, y, text), (u, v, more) = one, other
    return abs(y - v) < 8 and x < u + 4.2 * len(more) and u < x + 4.2 * len(text)
