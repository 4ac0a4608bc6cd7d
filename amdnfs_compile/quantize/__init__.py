"""Quantisation of a model's weights at compile time."""
