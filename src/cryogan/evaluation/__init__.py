"""Comparing maps; the only place that may see a true map or a true pose."""
