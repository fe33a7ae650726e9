from keras_wcond import ConditionedDense, ConditionedEinsumDense
from tests.keras_own.loading import keras_tests

model_test = keras_tests("models.model_test", "Dense", "EinsumDense")


class TestModel(model_test.ModelTest):
    def test_the_conditioned_classes_are_the_ones_under_test(self):
        assert type(model_test.layers.Dense(4)) is ConditionedDense
        assert type(model_test.layers.EinsumDense("ab,bc->ac", 4)) is ConditionedEinsumDense
