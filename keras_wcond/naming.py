"""Names of classes and numbers of things, as they are shown."""

import re


def snake_case(name: str) -> str:
    """`"Conv2DTranspose"` → `"conv2d_transpose"`, as Keras names layers after classes."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def counted(number: int, noun: str) -> str:
    """`"1 kernel"`, `"2 kernels"`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def class_name(instance: object) -> str:
    """The name under which an instance's class is imported."""
    # The `__name__` of a conditioned layer's class may be that of the plain class.
    return type(instance).__qualname__.rpartition(".")[2]
