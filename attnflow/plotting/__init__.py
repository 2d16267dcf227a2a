"""Draws results, computes nothing; every function takes ax=None and returns the Axes."""
