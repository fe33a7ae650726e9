"""Models that `fit()` builds, whose gains are weights."""

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned, ConditionedDense, ConditionedMultiHeadAttention, conditioners
from tests.helpers import normal, to_numpy


class UnitNorm(conditioners.Conditioner):
    """A method that does not compute with arrays."""

    def condition(self, matrices):
        return matrices / keras.ops.sqrt(keras.ops.sum(keras.ops.square(matrices), (1, 2), True))


class Attending(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__()
        self.attention = ConditionedMultiHeadAttention(2, 3, **kwargs)

    def call(self, inputs):
        return self.attention(inputs, inputs)


LAYERS = {
    "own kernel": lambda **kwargs: ConditionedDense(4, **kwargs),
    "wrapper": lambda **kwargs: Conditioned(keras.layers.Dense(4), **kwargs),
    "inner": Attending,
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    "arguments",
    [
        {"gain": "initial_norm"},
        {"trainable_gain": "scalar"},
        {"trainable_gain": "per_unit", "gain": "initial_norm"},
        {"gain": "initial_norm", "kernel_conditioner": UnitNorm()},
    ],
    ids=str,
)
def test_fit_builds_a_model_whose_gains_are_weights(kind, arguments):
    layer = LAYERS[kind](**arguments)
    model = keras.Sequential([layer, keras.layers.Flatten(), keras.layers.Dense(2)])
    # A learning rate of zero, so that kernels and gains stay the initial ones.
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(normal(3, 5, 6), np.zeros((3, 2)), verbose=0)
    layer = getattr(layer, "attention", layer)
    assert len(layer.gain_weights) == len(layer.raw_kernels)
    if arguments.get("gain") == "initial_norm":
        for path, kernel in layer.raw_kernels.items():
            conditioned = to_numpy(layer.conditioned_kernels[path])
            np.testing.assert_allclose(
                np.linalg.norm(conditioned), np.linalg.norm(to_numpy(kernel)), rtol=1e-5
            )
    else:
        np.testing.assert_array_equal(to_numpy(layer.gain_weights[0]), 1.0)
