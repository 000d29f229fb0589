"""Metrics: a number from the expected and the predicted answers of a task's rows. One family a file."""
