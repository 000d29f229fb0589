"""The scoring methods, one file each. None imports torch, so that the command can name them."""
