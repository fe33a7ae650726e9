"""What Keras has no common way for: gradients, on each backend."""

import keras
import numpy as np


def to_numpy(x):
    return keras.ops.convert_to_numpy(x)


def gradient(function, array):
    """The gradient of a scalar function of one tensor, at a NumPy array."""
    x = keras.ops.convert_to_tensor(array)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return to_numpy(tape.gradient(y, x))
    if backend == "jax":
        import jax

        return to_numpy(jax.grad(function)(x))
    x = x.clone().requires_grad_(True)
    function(x).backward()
    return to_numpy(x.grad)


def kernel_gradient(layer, inputs, upstream):
    """The gradient in the raw kernel of Σ upstream · layer(inputs)."""
    others = [variable.value for variable in layer.trainable_variables[1:]]
    non_trainable = [variable.value for variable in layer.non_trainable_variables]

    def loss(kernel):
        outputs, _ = layer.stateless_call([kernel, *others], non_trainable, inputs)
        return keras.ops.sum(keras.ops.multiply(outputs, upstream))

    return gradient(loss, to_numpy(layer.kernel))


def normal(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)
