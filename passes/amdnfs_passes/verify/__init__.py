"""Passes that check and change nothing."""
