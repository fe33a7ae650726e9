"""Networks of coordinates: encoding, precision and initial weights."""

import math

import keras
import numpy as np
import pytest

from tests.examples.loading import example
from tests.examples.small_networks import small


def test_positional_encoding():
    encode = example("common.coordinates").positional_encoding
    x = np.array([[0.25, -0.5, 0.1]], "float32")
    encoded = keras.ops.convert_to_numpy(encode(keras.ops.convert_to_tensor(x), 2))
    expected = [x[0]]
    for octave in (1.0, 2.0):
        expected += [np.sin(np.pi * octave * x[0]), np.cos(np.pi * octave * x[0])]
    assert encoded.shape == (1, 15)
    np.testing.assert_allclose(encoded[0], np.concatenate(expected), atol=1e-6)


def test_coordinates_keep_their_precision_in_mixed_precision():
    shape = example("shape")
    options = small("shape")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = shape.build("none", shape.load_data(options), options)
        first = model.get_layer("first")
        seen = keras.Model(model.inputs, first.output)
    finally:
        keras.config.set_dtype_policy("float32")
    points = np.random.default_rng(0).uniform(-1.0, 1.0, (64, 3)).astype("float32")
    kernel, bias = map(keras.ops.convert_to_numpy, first.weights)
    # Eight bits of a coordinate would be wrong by some thousandths.
    outputs = keras.ops.convert_to_numpy(seen(points))
    np.testing.assert_allclose(outputs, points @ kernel + bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("first", "bound"), [(True, 1 / 40), (False, math.sqrt(6 / 40) / 30.0)])
def test_sines_start_as_published(first, bound):
    shape = example("shape")
    options = shape.Options(activation="sine")
    kernel = example("common.coordinates").initializer(options, 40, first)((40, 500))
    largest = float(keras.ops.max(keras.ops.abs(kernel)))
    assert 0.99 * bound < largest <= bound * (1 + 1e-6)
