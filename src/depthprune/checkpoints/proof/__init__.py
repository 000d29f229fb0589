"""Prove a streamed cut in a child process that imports torch, so that the parent does not have to."""
