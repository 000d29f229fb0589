"""How much each layer matters. Higher always means keep; each metric is one file that names its paper."""

from depthprune.scores.base import LayerScores, Metric, Scores, metric, read_scores, registry

__all__ = ["LayerScores", "Metric", "Scores", "metric", "read_scores", "registry"]
