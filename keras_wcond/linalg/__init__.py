"""Linear algebra on tensors and on NumPy arrays."""
