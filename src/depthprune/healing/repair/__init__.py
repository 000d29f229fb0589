"""What the methods of training-free repair have in common: where layers are missing, states, and where a map folds."""
