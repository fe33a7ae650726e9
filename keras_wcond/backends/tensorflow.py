"""Derivatives and products on TensorFlow."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf
from keras import ops

from keras_wcond.linalg.norms import (
    SQUARES_WITHIN_RANGE,
    inverse_column_norms,
    with_zero_rows_fixed,
)

# Measured on training steps. With 32 rows instead of 64, a step takes a third longer at a width
# of 512, and slightly less time at a width of 1024.
FEW_TERMS, FEW_OF_MANY_TERMS, MANY_TERMS = 64, 32, 1024
# The source files of functions that recompute a function for its gradient.
RUN_AGAIN: frozenset[str] = frozenset({inspect.unwrap(tf.recompute_grad).__code__.co_filename})

# Functions of `(values, *data)`, where `values` is a list of tensors.
Function: TypeAlias = Callable[..., tf.Tensor]
Derivative: TypeAlias = Callable[..., Sequence[tf.Tensor]]
# The result of a function with a custom gradient, and the function of its gradients.
WithGradient: TypeAlias = tuple[tf.Tensor, Callable[[tf.Tensor], Any]]


def gradient(loss: Function) -> Derivative:
    def gradient(values: Sequence[tf.Tensor], *data: Any) -> Sequence[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(values)
            value = loss(values, *data)
        found: Sequence[tf.Tensor] = tape.gradient(value, values, unconnected_gradients="zero")
        return found

    return _compiled(gradient)


def hessian_product(loss: Function) -> Derivative:
    def product(
        values: Sequence[tf.Tensor], vectors: Sequence[tf.Tensor], *data: Any
    ) -> Sequence[tf.Tensor]:
        with tf.GradientTape() as outer:
            outer.watch(values)
            with tf.GradientTape() as inner:
                inner.watch(values)
                value = loss(values, *data)
            first = inner.gradient(value, values, unconnected_gradients="zero")
        found: Sequence[tf.Tensor] = outer.gradient(
            first, values, output_gradients=vectors, unconnected_gradients="zero"
        )
        return found

    return _compiled(product)


def gauss_newton_product(outputs: Function, loss: Function) -> Derivative:
    def product(
        values: Sequence[tf.Tensor], vectors: Sequence[tf.Tensor], *data: Any
    ) -> Sequence[tf.Tensor]:
        with tf.GradientTape() as backward:
            backward.watch(values)
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    inner.watch(values)
                    z = outputs(values, *data)
                # Jᵀu is linear in u, and its derivative in u along the vectors is J · vectors.
                u = tf.zeros_like(z)
                outer.watch(u)
                pulled = inner.gradient(z, values, output_gradients=u, unconnected_gradients="zero")
            along = outer.gradient(pulled, u, output_gradients=vectors)
        with tf.GradientTape() as outer:
            outer.watch(z)
            with tf.GradientTape() as inner:
                inner.watch(z)
                value = loss(z, *data)
            first = inner.gradient(value, z)
        curved = outer.gradient(first, z, output_gradients=along, unconnected_gradients="zero")
        found: Sequence[tf.Tensor] = backward.gradient(
            z, values, output_gradients=curved, unconnected_gradients="zero"
        )
        return found

    return _compiled(product)


def _compiled(function: Derivative) -> Derivative:
    compiled: Derivative = tf.function(function)
    return compiled


def call_traced_anew(layer: keras.layers.Layer) -> Callable[..., Any] | None:
    if not isinstance(layer.call, tf.types.experimental.PolymorphicFunction):
        return None
    function: Callable[..., Any] = layer.call.python_function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if tf.executing_eagerly():
            return function(*args, **kwargs)
        # This converts Python's control flow, as the layer's own `tf.function` does.
        return tf.function(function)(*args, **kwargs)

    return call


def files_that_run_again() -> frozenset[str]:
    return RUN_AGAIN


def is_tracing_apart() -> bool:
    return not tf.executing_eagerly()


def dense(x: Any, shape: Sequence[int]) -> tf.Tensor:
    # The gradient of an embedding has those rows only that were looked up.
    return tf.ensure_shape(tf.convert_to_tensor(x), shape)


def updates_variables_apart() -> bool:
    """Whether a distribution strategy updates each variable on its own devices."""
    return bool(tf.distribute.has_strategy())


def is_symbolic(tensor: tf.Tensor) -> bool:
    return is_tracing_apart()  # A variable has no value to copy then either.


def equilibrated(kernel: tf.Tensor, units: int) -> tf.Tensor:
    return tf.reshape(_equilibrated(tf.reshape(kernel, (-1, units))), kernel.shape)


def _equilibrated_and_gradient(kernel: tf.Tensor) -> WithGradient:
    reciprocal, scale = _inverse_norms(kernel)
    conditioned = kernel * scale * reciprocal

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        along = _sum(upstream * conditioned, axis=0)
        return (upstream - conditioned * along) * scale * reciprocal

    return conditioned, gradient


_equilibrated: Callable[..., tf.Tensor] = tf.custom_gradient(_equilibrated_and_gradient)


def equilibrated_product(
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    gain: tf.Tensor | None = None,
    bias: tf.Tensor | None = None,
    one_norm: bool = False,
) -> tf.Tensor:
    gain = tf.ones((), kernel.dtype) if gain is None else gain
    if isinstance(inputs, tf.SparseTensor):  # Functions with custom gradients do not accept it.
        reciprocal, scale = inverse_column_norms(kernel, one_norm)
        product = ops.matmul(inputs, kernel) * (reciprocal * scale * gain)
    else:
        # Functions with custom gradients do not treat variables as arguments.
        tensors = map(tf.convert_to_tensor, (inputs, kernel, gain))
        product = (_product_by_one_norm if one_norm else _product_by_own_norms)(*tensors)
    return product if bias is None else product + bias


def _product(inputs: tf.Tensor, kernel: tf.Tensor, gain: tf.Tensor, one_norm: bool) -> WithGradient:
    inverse = tf.multiply(*_inverse_norms(kernel, one_norm))
    product = tf.matmul(inputs, kernel)
    rows = inputs.shape[0]
    is_small = rows is None or rows < kernel.shape[0]

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        scaled = upstream * (inverse * gain)
        for_kernel = tf.matmul(inputs, scaled, transpose_a=True)
        along = _sum(upstream * product, axis=0) * inverse
        # This factor is about 1, while the cube of an inverse norm is easily out of range.
        unit = kernel * inverse
        # Both expressions have the same value. The second one does not use the product. Without a
        # trained gain, TensorFlow then drops the sum above and does not keep the product.
        pulled = along * gain * inverse if is_small else _sum(unit * for_kernel, axis=0)
        pulled = tf.reduce_sum(pulled) if one_norm else pulled
        return (
            tf.matmul(scaled, kernel, transpose_b=True),
            for_kernel - unit * pulled,
            along if gain.shape.rank else tf.reduce_sum(along),
        )

    return product * (inverse * gain), gradient


def _product_and_gradient_by_own_norms(
    inputs: tf.Tensor, kernel: tf.Tensor, gain: tf.Tensor
) -> WithGradient:
    return _product(inputs, kernel, gain, one_norm=False)


def _product_and_gradient_by_one_norm(
    inputs: tf.Tensor, kernel: tf.Tensor, gain: tf.Tensor
) -> WithGradient:
    return _product(inputs, kernel, gain, one_norm=True)


_product_by_own_norms: Callable[..., tf.Tensor] = tf.custom_gradient(
    _product_and_gradient_by_own_norms
)
_product_by_one_norm: Callable[..., tf.Tensor] = tf.custom_gradient(
    _product_and_gradient_by_one_norm
)


def column_equilibrated_product(
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    gain: tf.Tensor | None = None,
    bias: tf.Tensor | None = None,
) -> tf.Tensor:
    if isinstance(inputs, tf.SparseTensor):  # Functions with custom gradients do not accept it.
        kernel = with_zero_rows_fixed(kernel, axis=0)
        inverse = tf.multiply(*inverse_column_norms(tf.transpose(kernel)))
        product = ops.matmul(inputs, kernel * inverse[:, tf.newaxis])
    else:
        product = _product_by_row_norms(*map(tf.convert_to_tensor, (inputs, kernel)))
    product = product if gain is None else product * gain
    return product if bias is None else product + bias


def _product_and_gradient_by_row_norms(inputs: tf.Tensor, kernel: tf.Tensor) -> WithGradient:
    inverse = tf.multiply(*_inverse_row_norms(kernel))

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        unit = kernel * inverse[:, tf.newaxis]
        pulled = tf.matmul(inputs, upstream, transpose_a=True)
        across = pulled - unit * _sum(unit * pulled, axis=1)[:, tf.newaxis]
        return (
            tf.matmul(upstream, kernel, transpose_b=True) * inverse,
            tf.where(_is_nonzero(kernel), across * inverse[:, tf.newaxis], 0.0),
        )

    return tf.matmul(inputs * inverse, kernel), gradient


_product_by_row_norms: Callable[..., tf.Tensor] = tf.custom_gradient(
    _product_and_gradient_by_row_norms
)


def _inverse_norms(kernel: tf.Tensor, one_norm: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """Two factors of the inverse norms, as `inverse_column_norms()` returns them."""
    if _has_gpu():
        return inverse_column_norms(kernel, one_norm)
    squares = _sum(tf.square(kernel), axis=0)
    summed = tf.fill(tf.shape(squares), tf.reduce_sum(squares)) if one_norm else squares
    return _inverse_roots(squares, summed, lambda: inverse_column_norms(kernel, one_norm))


def _is_nonzero(kernel: tf.Tensor) -> tf.Tensor:
    """Whether each column has a non-zero entry."""

    def look() -> tf.Tensor:
        return tf.reduce_any(kernel != 0.0, axis=0)

    if _has_gpu():
        return look()
    # A column with a non-zero first entry is not zero. The other entries are rarely read.
    first = kernel[0] != 0.0
    return tf.cond(tf.reduce_all(first), lambda: first, look)


def _inverse_row_norms(kernel: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    columns = tf.transpose(kernel)
    if _has_gpu():
        return inverse_column_norms(columns)
    squares = _sum(tf.square(kernel), axis=1)
    return _inverse_roots(squares, squares, lambda: inverse_column_norms(columns))


def _has_gpu() -> bool:
    """Whether TensorFlow sees a GPU, on which another pass is faster than a branch."""
    return bool(tf.config.list_logical_devices("GPU"))


def _inverse_roots(
    squares: tf.Tensor,
    summed: tf.Tensor,
    otherwise: Callable[[], tuple[tf.Tensor, tf.Tensor]],
) -> tuple[tf.Tensor, tf.Tensor]:
    """`1 / √summed` and 1 if all squares are within range, or else the factors of `otherwise()`."""
    low, high = SQUARES_WITHIN_RANGE
    factors: tuple[tf.Tensor, tf.Tensor] = tf.cond(
        tf.reduce_all((squares > low) & (summed < high)),
        lambda: (tf.math.rsqrt(summed), tf.ones_like(summed)),
        otherwise,
    )
    return factors


def _sum(matrix: tf.Tensor, axis: int) -> tf.Tensor:
    """The sum over an axis, after repeated additions of its two halves.

    On CPUs, XLA sums many terms in two steps, and writes the terms to memory first, which takes
    longer than their addition. With few terms this cost is small. As each halving compiles to
    separate code, further halving takes longer than it saves.

    Args:
        matrix: Tensor of shape `(rows, columns)`.
        axis: Integer. The axis that is summed.

    Returns:
        Tensor of one axis.
    """
    terms = matrix.shape[axis]
    few = FEW_OF_MANY_TERMS if terms is not None and terms >= MANY_TERMS else FEW_TERMS
    while terms is not None and terms > few and terms % 2 == 0:
        terms //= 2
        matrix = tf.add(*tf.split(matrix, 2, axis))
    return tf.reduce_sum(matrix, axis)
