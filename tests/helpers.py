"""What Keras has no common way for, gradients on each backend, and what tensors differ by."""

import re

import keras
import numpy as np


def to_numpy(x):
    return keras.ops.convert_to_numpy(x)


def relative(result, expected):
    """The largest difference, relative to the largest value: sums may cancel to near zero."""
    result, expected = (to_numpy(x).astype("float64") for x in (result, expected))
    assert result.shape == expected.shape
    return np.max(np.abs(result - expected)) / np.max(np.abs(expected))


def at_once(function, **arguments):
    """The function as one program on JAX, which would compile each operation by itself."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function, **arguments)


def conditioned(conditioner, kernel, layout=-1):
    """The conditioned kernel, as NumPy has it."""
    return to_numpy(_condition(conditioner, layout, keras.ops.convert_to_tensor(kernel)))


def _condition(conditioner, layout, kernel):
    return conditioner(kernel, layout)


# Kept for equal conditioners and layouts.
_condition = at_once(_condition, static_argnums=(0, 1))


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

        return to_numpy(at_once(jax.grad(function))(x))
    x = x.clone().requires_grad_(True)
    function(x).backward()
    return to_numpy(x.grad)


def kernel_gradient(layer, inputs, upstream, kernel=None):
    """The gradient in a raw kernel (the first one) of Σ upstream · layer(inputs)."""
    trainable = layer.trainable_variables
    values = [variable.value for variable in trainable]
    index = 0 if kernel is None else next(i for i, v in enumerate(trainable) if v is kernel)
    non_trainable = [variable.value for variable in layer.non_trainable_variables]
    inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]

    def loss(kernel):
        changed = [*values[:index], kernel, *values[index + 1 :]]
        outputs, _ = layer.stateless_call(changed, non_trainable, *inputs)
        return keras.ops.sum(keras.ops.multiply(outputs, upstream))

    return gradient(loss, to_numpy(values[index]))


def normal(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def jacobian(function, array, order=1):
    """The dense derivative of a function of a vector; of the second order, its Hessian."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        derivative = jax.jacrev(function) if order == 1 else jax.hessian(function)
        return to_numpy(at_once(derivative)(keras.ops.convert_to_tensor(array)))
    if backend == "torch":
        import torch

        derivative = torch.autograd.functional.jacobian
        if order == 2:
            derivative = torch.autograd.functional.hessian
        return to_numpy(derivative(function, keras.ops.convert_to_tensor(array)))
    import tensorflow as tf

    x = tf.constant(array)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = function(x)
        if order == 2:
            y = inner.gradient(y, x)
    # Vectorized, TensorFlow aborts on products of stacks of matrices.
    return to_numpy(outer.jacobian(y, x, experimental_use_pfor=False))


def operations(function, *arrays):
    """The names of the backend's operations that a function of tensors takes, in their order."""
    tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        # Those inside of inner functions are printed with them.
        return re.findall(r"= (\w+)[\[ ]", str(jax.make_jaxpr(function)(*tensors)))
    if backend == "tensorflow":
        import tensorflow as tf

        graph = tf.function(function).get_concrete_function(*tensors).graph
        inner = [node.op for f in graph.as_graph_def().library.function for node in f.node_def]
        # Inner functions are in no particular order.
        return [operation.type for operation in graph.get_operations()] + sorted(inner)
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.found = []

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            self.found.append(operation.overloadpacket.__name__)
            return operation(*args, **(kwargs or {}))

    with Names() as names:
        function(*tensors)
    return names.found
