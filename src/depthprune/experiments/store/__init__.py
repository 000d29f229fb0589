"""The store of runs: records, leases on runs, checkpoints that are kept, and its cleaning. No torch."""
