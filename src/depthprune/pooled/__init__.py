"""A classifier on pooled token states, in place of the architecture's own head: the model, its files, loading it."""
