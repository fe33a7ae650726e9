"""Factors that a method holds constant in the gradient, and derivatives that go through them."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

from keras_wcond.linalg.arrays import namespace

_is_differentiated = contextvars.ContextVar("is_differentiated", default=False)


def held_constant(x: Any) -> Any:
    """The tensor without its gradient, except where derivatives are to be those of the value."""
    return x if _is_differentiated.get() else namespace(x).stop_gradient(x)


@contextlib.contextmanager
def exact_derivatives() -> Iterator[None]:
    """A scope in which the derivatives of every method are those of what it computes.

    Training may hold factors constant. The Hessian of a loss is that of its value.
    """
    token = _is_differentiated.set(True)
    try:
        yield
    finally:
        _is_differentiated.reset(token)
