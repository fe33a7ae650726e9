"""Functions for which Keras has no common interface, with one module for each backend.

The functions here are defaults for any backend. The module of the current backend replaces the
defaults that it defines itself. Only this package checks which backend is the current one, and
only its modules import a backend.

Keras offers no gradients outside of `fit()`, and no second derivatives. Its
`ops.custom_gradient` has no second derivative on PyTorch, and no forward mode on JAX.

The functions for derivatives take a function of lists of tensors, and return another one. On JAX
and TensorFlow the returned function is compiled once.
"""

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import keras
from keras import ops

from keras_wcond.linalg.arrays import Tensor
from keras_wcond.linalg.norms import normalized

__all__ = [
    "call_traced_anew",
    "column_equilibrated_product",
    "dense",
    "equilibrated",
    "equilibrated_product",
    "files_that_run_again",
    "gauss_newton_product",
    "gradient",
    "hessian_product",
    "is_autocasting",
    "is_symbolic",
    "is_tracing_apart",
    "parameter_exchanges",
    "updates_variables_apart",
    "without_autocast",
]

# A function of `(values, *data)` that returns a tensor, where `values` is a list of tensors.
Function: TypeAlias = Callable[..., Tensor]
# A function of lists of tensors and data that returns a list of tensors.
Derivative: TypeAlias = Callable[..., Sequence[Tensor]]


def updates_variables_apart() -> bool:
    """Whether an optimizer can assign only the variable that it is updating."""
    return False


def dense(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The tensor of a shape, with all its rows if only some are given."""
    return x


def gradient(loss: Function) -> Derivative:
    """The gradient of the scalar `loss(values, *data)`, as a function of `(values, *data)`."""
    raise NotImplementedError(_NO_DERIVATIVES)


def hessian_product(loss: Function) -> Derivative:
    """The product `∇²loss · vectors`, as a function of `(values, vectors, *data)`."""
    raise NotImplementedError(_NO_DERIVATIVES)


def gauss_newton_product(outputs: Function, loss: Function) -> Derivative:
    """The product `Jᵀ (∇²loss) J · vectors`, as a function of `(values, vectors, *data)`.

    Args:
        outputs: Function of `(values, *data)` with the Jacobian J.
        loss: Function of `(outputs, *data)`, which returns a scalar.

    Returns:
        Function that returns a list of tensors with the shapes of `values`.

    Raises:
        NotImplementedError: If the current backend computes no gradients.
    """
    raise NotImplementedError(_NO_DERIVATIVES)


def equilibrated(kernel: Tensor, units: int) -> Tensor:
    """`kernel · diag(1 / ‖kernelⱼ‖₂)`, whose columns have unit norm.

    The norms neither overflow nor underflow. A zero column stays zero and has a zero gradient.

    Args:
        kernel: Tensor in float32 or wider, which is reshaped to `(-1, units)`.
        units: Integer. The number of columns.

    Returns:
        Tensor of the kernel's shape, differentiable any number of times.
    """
    return ops.reshape(normalized(ops.reshape(kernel, (-1, units)), axis=0), kernel.shape)


def equilibrated_product(
    inputs: Tensor,
    kernel: Tensor,
    gain: Tensor | None = None,
    bias: Tensor | None = None,
    one_norm: bool = False,
) -> Tensor | None:
    """`inputs · kernel · diag(gain / ‖kernelⱼ‖₂) + bias`, without forming the scaled kernel.

    The product of the inputs and the raw kernel is scaled instead. It must be within range, as
    in a plain layer. The norms neither overflow nor underflow. A zero column of the kernel gives
    zeros and has a zero gradient.

    Args:
        inputs: As in `Conditioner.product()`.
        kernel: As in `Conditioner.product()`.
        gain: As in `Conditioner.product()`. Defaults to `None`.
        bias: As in `Conditioner.product()`. Defaults to `None`.
        one_norm: Boolean. Whether to divide every column by the norm of the whole kernel instead
            of the column's norm. Defaults to `False`.

    Returns:
        Tensor of shape `(rows, units)`, differentiable in all tensors any number of times. None
        if the backend has no such product.
    """
    return None


def column_equilibrated_product(
    inputs: Tensor,
    kernel: Tensor,
    gain: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor | None:
    """`inputs · diag(1 / ‖kernelᵢ‖₂) · kernel · gain + bias`, with the norms of the kernel's rows.

    The inputs are scaled instead of the kernel. The norms neither overflow nor underflow. A zero
    row or column of the kernel has a zero gradient.

    Args:
        inputs: As in `Conditioner.product()`.
        kernel: As in `Conditioner.product()`.
        gain: As in `Conditioner.product()`. Defaults to `None`.
        bias: As in `Conditioner.product()`. Defaults to `None`.

    Returns:
        Tensor of shape `(rows, units)`, differentiable in all tensors any number of times. None
        if the backend has no such product.
    """
    return None


# A scope in which the backend computes in the dtypes of its operands. `torch.autocast` rounds the
# operands of matrix products and of some other operations to half precision. Neither Keras' dtype
# policies nor the other backends do so.
without_autocast: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext


def is_autocasting(tensor: Tensor) -> bool:
    """Whether the backend rounds the operands of matrix products with a tensor."""
    return False


def call_traced_anew(layer: keras.layers.Layer) -> Callable[..., Any] | None:
    """The `call` of a layer without its traces, if it is a compiled function.

    On TensorFlow, a `call` under `tf.function` keeps the tensors that it read while it was traced.

    Args:
        layer: A Keras layer.

    Returns:
        Function that runs the layer's original `call`, traced again where TensorFlow is tracing.
        None if the layer's `call` is not a compiled function.
    """
    return None


def is_symbolic(tensor: Tensor) -> bool:
    """Whether a tensor stands for values that are not known yet, as in a traced function."""
    return False


def is_tracing_apart() -> bool:
    """Whether TensorFlow is tracing a function instead of executing eagerly."""
    return False


def files_that_run_again() -> frozenset[str]:
    """The source files of functions that recompute a function for its gradient.

    JAX has no such function, because `jax.checkpoint` traces a function only once.

    Returns:
        Set of file names.
    """
    return frozenset()


def parameter_exchanges(
    layer: keras.layers.Layer, variable: keras.Variable
) -> list[Callable[[Tensor], Tensor]]:
    """Functions that replace a variable's parameter in PyTorch modules by a tensor.

    The module of a `keras.layers.TorchModuleWrapper` reads its own parameters and not the Keras
    variables.

    Args:
        layer: A Keras layer.
        variable: A variable of the layer.

    Returns:
        List with a function for each occurrence of the parameter. The function takes the new
        tensor and returns the previous one.
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
