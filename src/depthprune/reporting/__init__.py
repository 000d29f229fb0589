"""Tables, pictures and pages from recorded runs. No torch."""
