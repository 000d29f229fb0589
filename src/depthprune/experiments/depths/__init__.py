"""Several depths of one model from one training."""
