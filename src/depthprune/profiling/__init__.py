"""What a model costs: parameters, bytes, milliseconds."""
