"""Triton sources, one kernel a file; the kernel has the name of its file."""
