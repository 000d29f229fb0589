"""The command `depthprune`. Only this package prints."""
