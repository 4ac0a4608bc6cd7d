"""Passes that recognise several operations as one."""
