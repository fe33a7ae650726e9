from keras_wcond import ConditionedConv1D, ConditionedDense
from tests.keras_own.loading import keras_tests

cloning_test = keras_tests("models.cloning_test", "Dense", "Conv1D")


class TestCloneModel(cloning_test.CloneModelTest):
    def test_the_conditioned_classes_are_the_ones_under_test(self):
        assert type(cloning_test.layers.Dense(4)) is ConditionedDense
        assert type(cloning_test.layers.Conv1D(4, 3)) is ConditionedConv1D
