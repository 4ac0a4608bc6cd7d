"""Importers: from a model on disk to MLIR."""
