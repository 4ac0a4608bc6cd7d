"""MLIR passes of this project, one a file."""
