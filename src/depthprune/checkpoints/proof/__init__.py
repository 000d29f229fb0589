"""Prove a streamed cut in a child process that imports torch, so that its parent need not."""
