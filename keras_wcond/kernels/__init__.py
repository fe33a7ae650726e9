"""The kernels of layers, and their reading as matrices."""
