"""What Keras has no common way for: one module for each backend, and nothing else in them.

The functions here serve any backend, as far as one can. Below them, the module of the backend in
force takes the place of those that it defines. This is the one place that asks which backend is in
force, and its modules are the only ones that import one.

Keras offers no gradient outside of `fit()`, let alone one of a gradient. And its
`ops.custom_gradient` is not differentiable in turn on PyTorch, nor in forward mode on JAX.

Derivatives take functions of lists of tensors, and return functions of lists of tensors that
may be called again and again; on JAX and TensorFlow these are compiled once.
"""

import contextlib
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_wcond.linalg.norms import normalized

__all__ = [
    "call_traced_anew",
    "column_equilibrated_product",
    "equilibrated",
    "equilibrated_product",
    "files_that_run_again",
    "gauss_newton_product",
    "gradient",
    "hessian_product",
    "is_autocasting",
    "is_tracing_apart",
    "parameter_exchanges",
    "without_autocast",
]


def gradient(loss: Callable[..., Any]) -> Callable[..., list[Any]]:
    """The gradient of `loss(values, *data)`, a scalar, in `values`: `g(values, *data)`."""
    raise NotImplementedError(_NO_DERIVATIVES)


def hessian_product(loss: Callable[..., Any]) -> Callable[..., list[Any]]:
    """The product `∇²loss · vectors`, as a function of `(values, vectors, *data)`."""
    raise NotImplementedError(_NO_DERIVATIVES)


def gauss_newton_product(
    outputs: Callable[..., Any], loss: Callable[..., Any]
) -> Callable[..., list[Any]]:
    """The product `Jᵀ (∇²loss) J · vectors`, as a function of `(values, vectors, *data)`.

    Args:
        outputs: Function of `(values, *data)` with the Jacobian J.
        loss: Function of `(outputs, *data)`.
    """
    raise NotImplementedError(_NO_DERIVATIVES)


def equilibrated(kernel: Any, units: int) -> Any:
    """`kernel · diag(1 / ‖kernelⱼ‖₂)`: every column of unit norm.

    The norms neither overflow nor underflow; a column that is zero stays zero, and has a zero
    gradient.

    Args:
        kernel: Tensor in float32 or wider, seen as a matrix of shape `(columns, units)`.
        units: Integer.

    Returns:
        Tensor of the same shape as the kernel, differentiable any number of times.
    """
    return ops.reshape(normalized(ops.reshape(kernel, (-1, units)), axis=0), kernel.shape)


def equilibrated_product(
    inputs: Any, kernel: Any, gain: Any = None, bias: Any = None, one_norm: bool = False
) -> Any:
    """`inputs · kernel · diag(gain / ‖kernelⱼ‖₂) + bias`, the scaled kernel never being formed.

    The product of the inputs and the raw kernel is scaled in its place, so that it has to be
    within range, as in a plain layer. The norms neither overflow nor underflow; a column of
    the kernel that is zero gives zeros, and has a zero gradient.

    The first arguments are those of `Conditioner.product`, and the result is differentiable in
    all of them, any number of times. With `one_norm`, every column is divided by the norm of the
    whole kernel in place of its own. None where the backend has no such product.
    """
    return None


def column_equilibrated_product(
    inputs: Any, kernel: Any, gain: Any = None, bias: Any = None
) -> Any:
    """`inputs · diag(1 / ‖kernelᵢ‖₂) · kernel · gain + bias`, the norms being those of rows.

    The inputs are scaled in place of the kernel. The norms neither overflow nor underflow; a row
    or a column of the kernel that is zero has a zero gradient.

    The arguments are those of `Conditioner.product`, and the result is differentiable in all of
    them, any number of times. None where the backend has no such product.
    """
    return None


# A scope in which the backend computes in the dtypes that it is given. PyTorch's own
# `torch.autocast` rounds the operands of matrix products and some other operations to half
# precision. Keras' dtype policies do not, and no other backend does.
without_autocast = contextlib.nullcontext


def is_autocasting(tensor: Any) -> bool:
    """Whether the backend rounds the operands of matrix products with a tensor."""
    return False


def call_traced_anew(layer: keras.layers.Layer) -> Callable[..., Any] | None:
    """The `call` of a layer without the programs it was compiled to, or None for any other.

    On TensorFlow, a `call` under `tf.function` keeps the tensors it read when it was traced.
    """
    return None


def is_tracing_apart() -> bool:
    """Whether TensorFlow is tracing a function, and not computing at once."""
    return False


def files_that_run_again() -> frozenset[str]:
    """The source files of functions that run what they are given again, for the gradient.

    JAX' own traces it once, and differentiates what was read then.
    """
    return frozenset()


def parameter_exchanges(layer: keras.layers.Layer, variable: Any) -> list[Callable[[Any], Any]]:
    """Functions that put a tensor where a PyTorch module holds that of a variable.

    A `keras.layers.TorchModuleWrapper` runs its module, which never asks the Keras variable.
    Each function returns the tensor that was there before.
    """
    return []


_NO_DERIVATIVES = (
    "Expected a backend that computes gradients: 'jax', 'tensorflow' or 'torch'. Received: "
    f"keras.backend.backend()={keras.backend.backend()!r}. Set KERAS_BACKEND."
)


def _take_the_place_of_defaults() -> None:
    name = f"{__name__}.{keras.backend.backend()}"
    if importlib.util.find_spec(name) is None:
        return
    own = vars(importlib.import_module(name))
    globals().update({name: own[name] for name in __all__ if name in own})


_take_the_place_of_defaults()
