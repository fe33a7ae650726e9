import tensorflow as tf
from keras import ops

from keras_wcond.norms import SQUARES_WITHIN_RANGE, inverse_column_norms

# By measurement of training steps: 32 rows in place of 64 take a third longer at a width of 512,
# and at 1024 a little less.
FEW_ROWS, FEW_OF_MANY_ROWS, MANY_ROWS = 64, 32, 1024


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


def equilibrated(kernel, units):
    return tf.reshape(_equilibrated(tf.reshape(kernel, (-1, units))), kernel.shape)


@tf.custom_gradient
def _equilibrated(kernel):
    reciprocal, scale = _inverse_norms(kernel)
    conditioned = kernel * scale * reciprocal

    def gradient(upstream):
        along = _sum_of_rows(upstream * conditioned)
        return (upstream - conditioned * along) * scale * reciprocal

    return conditioned, gradient


def equilibrated_product(inputs, kernel, gain, bias, one_norm):
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

    def gradient(upstream):
        scaled = upstream * (inverse * gain)
        along = _sum_of_rows(upstream * product) * inverse
        pulled = tf.reduce_sum(along * gain) if one_norm else along * gain
        # Factors of about 1 each, since the cube of an inverse norm is soon out of range.
        correction = (kernel * inverse) * (pulled * inverse)
        return (
            tf.matmul(scaled, kernel, transpose_b=True),
            tf.matmul(inputs, scaled, transpose_a=True) - correction,
            along if gain.shape.rank else tf.reduce_sum(along),
        )

    return product * (inverse * gain), gradient


def _inverse_norms(kernel, one_norm=False):
    """Two factors of the inverse norms, as `inverse_column_norms` has them."""
    if tf.config.list_logical_devices("GPU"):
        # An accelerator reads once more sooner than it asks the host where to go on.
        return inverse_column_norms(kernel, one_norm)
    squares = _sum_of_rows(tf.square(kernel))
    summed = tf.fill(tf.shape(squares), tf.reduce_sum(squares)) if one_norm else squares
    low, high = SQUARES_WITHIN_RANGE
    return tf.cond(
        tf.reduce_all((squares > low) & (summed < high)),
        lambda: (tf.math.rsqrt(summed), tf.ones_like(summed)),
        lambda: inverse_column_norms(kernel, one_norm),
    )


def _sum_of_rows(matrix):
    """The sum over axis 0, halved on the way.

    XLA on CPUs takes the sum of many rows in two steps, and writes what is to be added to memory
    first, which costs more than adding it. Of few rows that is little, and each halving compiles
    to code of its own: further halving takes longer than it saves.
    """
    rows = matrix.shape[0]
    few = FEW_OF_MANY_ROWS if rows is not None and rows >= MANY_ROWS else FEW_ROWS
    while rows is not None and rows > few and rows % 2 == 0:
        rows //= 2
        matrix = matrix[:rows] + matrix[rows:]
    return tf.reduce_sum(matrix, axis=0)
