"""Parts for depthprune, one a file."""
