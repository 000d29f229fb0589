"""Tables, pictures and pages from what was measured; no torch."""
