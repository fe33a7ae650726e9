import functools
import inspect

import tensorflow as tf
from keras import ops

from keras_wcond.linalg.norms import (
    SQUARES_WITHIN_RANGE,
    inverse_column_norms,
    with_zero_rows_fixed,
)

# By measurement of training steps: 32 rows in place of 64 take a third longer at a width of 512,
# and at 1024 a little less.
FEW_TERMS, FEW_OF_MANY_TERMS, MANY_TERMS = 64, 32, 1024
# The source files of functions that run what they are given again, for the gradient.
RUN_AGAIN = frozenset({inspect.unwrap(tf.recompute_grad).__code__.co_filename})


def gradient(loss):
    @tf.function
    def gradient(values, *data):
        with tf.GradientTape() as tape:
            tape.watch(values)
            value = loss(values, *data)
        return tape.gradient(value, values, unconnected_gradients="zero")

    return gradient


def hessian_product(loss):
    @tf.function
    def product(values, vectors, *data):
        with tf.GradientTape() as outer:
            outer.watch(values)
            with tf.GradientTape() as inner:
                inner.watch(values)
                value = loss(values, *data)
            first = inner.gradient(value, values, unconnected_gradients="zero")
        return outer.gradient(first, values, output_gradients=vectors, unconnected_gradients="zero")

    return product


def gauss_newton_product(outputs, loss):
    @tf.function
    def product(values, vectors, *data):
        with tf.GradientTape() as backward:
            backward.watch(values)
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    inner.watch(values)
                    z = outputs(values, *data)
                # Jᵀu is linear in u: the derivative in u, along the vectors, is J · vectors.
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
        return backward.gradient(z, values, output_gradients=curved, unconnected_gradients="zero")

    return product


def call_traced_anew(layer):
    if not isinstance(layer.call, tf.types.experimental.PolymorphicFunction):
        return None
    function = layer.call.python_function

    @functools.wraps(function)
    def call(*args, **kwargs):
        if tf.executing_eagerly():
            return function(*args, **kwargs)
        # Which converts Python's control flow, as the layer's own does.
        return tf.function(function)(*args, **kwargs)

    return call


def files_that_run_again():
    return RUN_AGAIN


def is_tracing_apart():
    return not tf.executing_eagerly()


def equilibrated(kernel, units):
    return tf.reshape(_equilibrated(tf.reshape(kernel, (-1, units))), kernel.shape)


@tf.custom_gradient
def _equilibrated(kernel):
    reciprocal, scale = _inverse_norms(kernel)
    conditioned = kernel * scale * reciprocal

    def gradient(upstream):
        along = _sum(upstream * conditioned, axis=0)
        return (upstream - conditioned * along) * scale * reciprocal

    return conditioned, gradient


def equilibrated_product(inputs, kernel, gain=None, bias=None, one_norm=False):
    gain = tf.ones((), kernel.dtype) if gain is None else gain
    if isinstance(inputs, tf.SparseTensor):  # Which functions with own gradients do not take.
        reciprocal, scale = inverse_column_norms(kernel, one_norm)
        product = ops.matmul(inputs, kernel) * (reciprocal * scale * gain)
    else:
        # Not variables, which functions with own gradients take for other than arguments.
        tensors = map(tf.convert_to_tensor, (inputs, kernel, gain))
        product = (_product_by_one_norm if one_norm else _product_by_own_norms)(*tensors)
    return product if bias is None else product + bias


@tf.custom_gradient
def _product_by_own_norms(inputs, kernel, gain):
    return _product(inputs, kernel, gain, one_norm=False)


@tf.custom_gradient
def _product_by_one_norm(inputs, kernel, gain):
    return _product(inputs, kernel, gain, one_norm=True)


def _product(inputs, kernel, gain, one_norm):
    inverse = tf.multiply(*_inverse_norms(kernel, one_norm))
    product = tf.matmul(inputs, kernel)
    rows = inputs.shape[0]
    is_small = rows is None or rows < kernel.shape[0]

    def gradient(upstream):
        scaled = upstream * (inverse * gain)
        for_kernel = tf.matmul(inputs, scaled, transpose_a=True)
        along = _sum(upstream * product, axis=0) * inverse
        # Factors of about 1 each, since the cube of an inverse norm is soon out of range.
        unit = kernel * inverse
        # Two ways to the same numbers. By the second one, only the gradient of a trained gain asks
        # for the product: without one it is not kept, and the sum above dropped.
        pulled = along * gain * inverse if is_small else _sum(unit * for_kernel, axis=0)
        pulled = tf.reduce_sum(pulled) if one_norm else pulled
        return (
            tf.matmul(scaled, kernel, transpose_b=True),
            for_kernel - unit * pulled,
            along if gain.shape.rank else tf.reduce_sum(along),
        )

    return product * (inverse * gain), gradient


def column_equilibrated_product(inputs, kernel, gain=None, bias=None):
    if isinstance(inputs, tf.SparseTensor):  # Which functions with own gradients do not take.
        kernel = with_zero_rows_fixed(kernel, axis=0)
        inverse = tf.multiply(*inverse_column_norms(tf.transpose(kernel)))
        product = ops.matmul(inputs, kernel * inverse[:, tf.newaxis])
    else:
        product = _product_by_row_norms(*map(tf.convert_to_tensor, (inputs, kernel)))
    product = product if gain is None else product * gain
    return product if bias is None else product + bias


@tf.custom_gradient
def _product_by_row_norms(inputs, kernel):
    inverse = tf.multiply(*_inverse_row_norms(kernel))

    def gradient(upstream):
        unit = kernel * inverse[:, tf.newaxis]
        pulled = tf.matmul(inputs, upstream, transpose_a=True)
        across = pulled - unit * _sum(unit * pulled, axis=1)[:, tf.newaxis]
        return (
            tf.matmul(upstream, kernel, transpose_b=True) * inverse,
            tf.where(_is_nonzero(kernel), across * inverse[:, tf.newaxis], 0.0),
        )

    return tf.matmul(inputs * inverse, kernel), gradient


def _inverse_norms(kernel, one_norm=False):
    """Two factors of the inverse norms, as `inverse_column_norms` has them."""
    if _has_gpu():
        return inverse_column_norms(kernel, one_norm)
    squares = _sum(tf.square(kernel), axis=0)
    summed = tf.fill(tf.shape(squares), tf.reduce_sum(squares)) if one_norm else squares
    return _inverse_roots(squares, summed, lambda: inverse_column_norms(kernel, one_norm))


def _is_nonzero(kernel):
    """For each column, whether any of its entries is not zero."""

    def look():
        return tf.reduce_any(kernel != 0.0, axis=0)

    if _has_gpu():
        return look()
    # No column is zero whose first entry is not: the others are rarely looked at.
    first = kernel[0] != 0.0
    return tf.cond(tf.reduce_all(first), lambda: first, look)


def _inverse_row_norms(kernel):
    columns = tf.transpose(kernel)
    if _has_gpu():
        return inverse_column_norms(columns)
    squares = _sum(tf.square(kernel), axis=1)
    return _inverse_roots(squares, squares, lambda: inverse_column_norms(columns))


def _has_gpu():
    """An accelerator reads once more sooner than it asks the host where to go on."""
    return bool(tf.config.list_logical_devices("GPU"))


def _inverse_roots(squares, summed, otherwise):
    low, high = SQUARES_WITHIN_RANGE
    return tf.cond(
        tf.reduce_all((squares > low) & (summed < high)),
        lambda: (tf.math.rsqrt(summed), tf.ones_like(summed)),
        otherwise,
    )


def _sum(matrix, axis):
    """The sum over an axis, halved on the way.

    XLA on CPUs takes the sum of many terms in two steps, and writes what is to be added to memory
    first, which costs more than adding it. Of few terms that is little, and each halving compiles
    to code of its own: further halving takes longer than it saves.
    """
    terms = matrix.shape[axis]
    few = FEW_OF_MANY_TERMS if terms is not None and terms >= MANY_TERMS else FEW_TERMS
    while terms is not None and terms > few and terms % 2 == 0:
        terms //= 2
        matrix = tf.add(*tf.split(matrix, 2, axis))
    return tf.reduce_sum(matrix, axis)
