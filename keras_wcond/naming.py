import re


def snake_case(name: str) -> str:
    """`"Conv2DTranspose"` → `"conv2d_transpose"`, as Keras names layers after classes."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
