"""Layers and training steps for the tests of bodies that run later or again."""

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned
from tests.helpers import normal, to_numpy

layers = keras.layers


BACKEND = keras.backend.backend()


def conditioned(case, form, **arguments):
    """One kind of layer, as its conditioned class or as the plain class in a wrapper."""
    if form == "class":
        return case.conditioned(**case.arguments, **arguments)
    return Conditioned(case.plain(**case.arguments), **arguments)


every_form = pytest.mark.parametrize("form", ["class", "wrapper"])


def weights_after_training(layer, case, steps=3):
    """The weights of a model around a layer after some steps of gradient descent."""
    inputs = [keras.Input(shape) for shape in case.input_shapes]
    first = [layers.Dense(shape[-1], kernel_initializer="identity")(x)
             for x, shape in zip(inputs, case.input_shapes, strict=True)]  # fmt: skip
    model = keras.Model(inputs, layers.Flatten()(layer(*first)))
    for i, weight in enumerate(model.weights):
        if np.issubdtype(to_numpy(weight).dtype, np.floating):  # No seed.
            weight.assign(normal(*weight.shape, seed=i) / np.sqrt(np.prod(weight.shape[:-1]) + 1.0))
    model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=BACKEND != "jax")
    x = case.inputs(4)
    targets = np.ones(model(x).shape, "float32")
    for _ in range(steps):
        model.train_on_batch(x, targets)
    return [to_numpy(weight) for weight in model.trainable_weights]


@keras.saving.register_keras_serializable("tests")
class Around(layers.Layer):
    """A user's layer around another, which Keras calls on symbols to know its output."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def build(self, input_shape):
        self.built = True  # Its inner layer is when it is called.

    def call(self, inputs):
        return self.inner(*inputs) if isinstance(inputs, (list, tuple)) else self.inner(inputs)
