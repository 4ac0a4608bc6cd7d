"""Passes that lower torch operations themselves."""
