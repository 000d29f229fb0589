"""An objective for `depthprune search`: how many of a classifier's answers a plan changes."""

from depthprune.scores.objectives.base import objective


@objective("changed", heads=("classes",), against_full=True, unit="share of answers")
def changed(output, batch, head, full_output) -> tuple[float, int]:
    """Share of the examples that the cut model puts into another class than the full one."""
    from depthprune.scores.predictions import logits_of

    ours_B, theirs_B = (logits_of(each).argmax(-1) for each in (output, full_output))
    return float((ours_B != theirs_B).sum()), len(ours_B)
