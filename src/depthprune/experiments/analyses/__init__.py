"""The paper's two analyses: a probe on every layer, and how far fine-tuning turned it."""
