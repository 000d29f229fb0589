"""Healing methods, one a file, and the named recipes made of them. All are importable without torch."""
