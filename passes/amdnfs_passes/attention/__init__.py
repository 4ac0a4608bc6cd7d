"""Passes that give attention its meaning in linalg."""
