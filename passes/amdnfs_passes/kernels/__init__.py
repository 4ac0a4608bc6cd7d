"""Kernels of fused operations, written in Triton and compiled offline for one target. One kernel a file."""
