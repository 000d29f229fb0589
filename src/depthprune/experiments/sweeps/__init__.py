"""Many runs: the grid, its expansion into unique runs, the executors, and where a sweep stands."""
