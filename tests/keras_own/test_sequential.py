from keras_wcond import ConditionedConv2D, ConditionedDense
from tests.keras_own.loading import keras_tests

sequential_test = keras_tests("models.sequential_test", "Dense", "Conv2D")


class TestSequential(sequential_test.SequentialTest):
    def test_the_conditioned_classes_are_the_ones_under_test(self):
        assert type(sequential_test.layers.Dense(4)) is ConditionedDense
        assert type(sequential_test.layers.Conv2D(4, 3)) is ConditionedConv2D
