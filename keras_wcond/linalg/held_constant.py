"""Factors that are constant in the gradient of a method, and exact derivatives of it."""

import contextlib
import contextvars
from collections.abc import Iterator

from keras_wcond.linalg.arrays import Tensor, namespace

_is_differentiated = contextvars.ContextVar("is_differentiated", default=False)


def held_constant(x: Tensor) -> Tensor:
    """The tensor without its gradient, except within `exact_derivatives()`."""
    return x if _is_differentiated.get() else namespace(x).stop_gradient(x)


@contextlib.contextmanager
def exact_derivatives() -> Iterator[None]:
    """A scope in which every method has the exact derivatives of its value.

    In training, a method may hold factors constant. The Hessian of a loss needs the derivatives
    of those factors as well.
    """
    token = _is_differentiated.set(True)
    try:
        yield
    finally:
        _is_differentiated.reset(token)
