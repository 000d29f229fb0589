"""How much each layer matters. Higher always means keep; each scoring method is one file that names its paper."""

from depthprune.scores.base import LayerScores, Scores, ScoringMethod, read_scores, registry, scoring_method

__all__ = ["LayerScores", "Scores", "ScoringMethod", "read_scores", "registry", "scoring_method"]
