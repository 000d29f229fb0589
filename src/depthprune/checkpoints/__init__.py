"""The cut in files: read the layout of a checkpoint, cut it, copy it, prove it, write what lies beside it."""
