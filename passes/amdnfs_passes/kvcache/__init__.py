"""Passes that keep the KV cache in place."""
