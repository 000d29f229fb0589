"""Choose layers on calibration data: score, search, and the objectives that a search minimises."""
