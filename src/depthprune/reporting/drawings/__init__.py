"""Drawings of a report, of scores and of searches (matplotlib). No torch."""
