"""The linear algebra of conditioning, on tensors and on NumPy arrays."""
