"""Networks with a layer of each method train, save and load, on every policy."""

import keras
import numpy as np
import pytest

from keras_wcond import ConditionedConv2D, ConditionedDense, fold_model
from keras_wcond.conditioners import METHODS
from tests.helpers import normal, to_numpy

SEQUENCE = ["row_equilibration", "polynomial_preconditioner"]


def network(dtype="float32", gain="auto"):
    keras.utils.set_random_seed(7)
    layers = [
        ConditionedConv2D(
            8,
            3,
            groups=2,
            kernel_conditioner=method(),
            gain=gain,
            activation="tanh",
            dtype=dtype,
            padding="same",
        )
        for method in METHODS.values()
    ]
    last = ConditionedDense(3, kernel_conditioner=SEQUENCE, dtype=dtype)
    return keras.Sequential([keras.Input((4, 4, 8)), *layers, keras.layers.Flatten(), last])


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_every_method_trains(dtype):
    model = network(dtype)
    before = [to_numpy(weight).copy() for weight in model.trainable_weights]
    model.compile("adam", "mse")
    inputs, targets = normal(16, 4, 4, 8), normal(16, 3, seed=1)
    losses = model.fit(inputs, targets, epochs=4, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0]
    for old, new in zip(before, model.trainable_weights, strict=True):
        assert np.any(to_numpy(new) != old), new.path


def test_every_method_is_saved_and_folded(tmp_path):
    model, inputs = network(), normal(2, 4, 4, 8)
    expected = to_numpy(model(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(to_numpy(loaded(inputs)), expected, rtol=1e-5, atol=1e-6)
    methods = [layer.kernel_conditioner for layer in loaded.layers[: len(METHODS)]]
    assert methods == [method() for method in METHODS.values()]
    folded = fold_model(model)
    np.testing.assert_allclose(to_numpy(folded(inputs)), expected, rtol=1e-4, atol=1e-5)
