"""Numbers from a model: what it scores on a task."""
