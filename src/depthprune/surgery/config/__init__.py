"""What a drop does to a configuration: depth entries, per-layer entries, formulas, refusals. No torch."""
