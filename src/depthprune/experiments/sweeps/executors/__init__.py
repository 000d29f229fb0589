"""Executors: map a function over items, here or elsewhere. They know nothing of pruning."""
