"""Kernels: where they lie in layers, and how they are read as matrices."""
