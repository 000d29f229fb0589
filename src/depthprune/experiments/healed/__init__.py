"""Heal a checkpoint that was cut already, on text without labels or on a task."""
