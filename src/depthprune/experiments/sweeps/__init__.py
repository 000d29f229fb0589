"""Sweeps: the grid, its expansion into unique runs, the executors, and the status."""
