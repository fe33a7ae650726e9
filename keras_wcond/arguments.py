"""Checks of arguments that several classes share, and names as people write and read them."""

import numbers
import re
from typing import Any


def positive_integer(name: str, value: int) -> int:
    """The value of the argument `name`, or an error unless it is a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"Expected `{name}` to be a positive integer. Received: {name}={value!r} (of type "
            f"{type(value).__name__})"
        )
    return value


def by_either_name(name: str, value: Any, default: Any, earlier_name: str, earlier: Any) -> Any:
    """The value of the argument `name`, which may be given by an earlier name instead.

    Args:
        name: The argument's name.
        value: The value that it has by this name.
        default: Its default.
        earlier_name: Its earlier name.
        earlier: The value that it has by the earlier name, or None.

    Returns:
        `value` or `earlier`.

    Raises:
        ValueError: If both are given.
    """
    if earlier is None:
        return value
    if value != default:
        raise ValueError(
            f"Expected `{name}` without `{earlier_name}`, which is its earlier name. Received: "
            f"{name}={value!r}, {earlier_name}={earlier!r}."
        )
    return earlier


def boolean(name: str, value: bool) -> bool:
    """The value of the argument `name`, or an error unless it is a boolean."""
    if not isinstance(value, bool):
        raise TypeError(
            f"Expected `{name}` to be a boolean. Received: {name}={value!r} (of type "
            f"{type(value).__name__})"
        )
    return value


def number_between(
    name: str, value: float, lower: float, upper: float, includes_upper: bool = False
) -> float:
    """The value of the argument `name`, or an error unless it lies between two bounds."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    is_between = is_number and (lower < value < upper or (includes_upper and value == upper))
    if not is_between:
        limit = "at most" if includes_upper else "below"
        raise ValueError(
            f"Expected `{name}` to be a number above {lower:g} and {limit} {upper:g}. Received: "
            f"{name}={value!r}"
        )
    return float(value)


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
