"""What methods with a teacher have in common: which of its states are matched, its outputs, the losses."""
