import importlib.util

import keras
import pytest

from keras_wcond import ConditionedDense
from tests.keras_own.loading import keras_tests

dense_test = keras_tests("layers.core.dense_test", "Dense")
NO_TENSORFLOW = importlib.util.find_spec("tensorflow") is None


class TestDense(dense_test.DenseTest):
    def test_the_conditioned_class_is_the_one_under_test(self):
        layer = dense_test.layers.Dense(4)
        assert type(layer) is ConditionedDense
        assert layer.kernel_conditioner is None

    test_dense_sparse = pytest.mark.skipif(
        keras.backend.backend() == "jax" and NO_TENSORFLOW,
        reason="Keras' test makes its sparse input with TensorFlow, which is not installed",
    )(dense_test.DenseTest.test_dense_sparse)
