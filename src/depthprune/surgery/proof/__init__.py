"""Prove a cut: compare on the meta device, run on random input, run with the default cache."""
