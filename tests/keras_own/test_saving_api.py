from keras_wcond import ConditionedDense
from tests.keras_own.loading import keras_tests

saving_api_test = keras_tests("saving.saving_api_test", "Dense")


class TestSaveModel(saving_api_test.SaveModelTests):
    def test_the_conditioned_class_is_the_one_under_test(self):
        assert type(saving_api_test.layers.Dense(4)) is ConditionedDense


class TestLoadModel(saving_api_test.LoadModelTests):
    """Every test is Keras' own."""


class TestLoadWeights(saving_api_test.LoadWeightsTests):
    """Every test is Keras' own."""
