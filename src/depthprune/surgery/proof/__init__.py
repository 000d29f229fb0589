"""Prove a cut: compare on the meta device, run on made-up input, run with the default cache."""
