"""Checks of arguments that several classes share."""


def positive_integer(name: str, value: int) -> int:
    """The value of the argument `name`, or an error unless it is a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"Expected `{name}` to be a positive integer. Received: {name}={value!r}")
    return value
