"""Recover quality after the drop."""
