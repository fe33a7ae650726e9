from keras_wcond import ConditionedDense
from tests.keras_own.loading import keras_tests

dense_test = keras_tests("core.dense_test", "Dense")


class TestDense(dense_test.DenseTest):
    def test_the_conditioned_class_is_the_one_under_test(self):
        layer = dense_test.layers.Dense(4)
        assert type(layer) is ConditionedDense
        assert layer.kernel_conditioner is None
