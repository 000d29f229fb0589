"""The census: depthprune's surgery tried on every architecture of the installed transformers, on tiny random models.

`python -m tests.census` runs it, from the root of the repository; see `__main__`.
"""
