from keras_wcond import ConditionedDense
from tests.keras_own.loading import keras_tests

file_editor_test = keras_tests("saving.file_editor_test", "Dense")


class TestFileEditor(file_editor_test.SavingTest):
    def test_the_conditioned_class_is_the_one_under_test(self):
        assert type(file_editor_test.keras.layers.Dense(4)) is ConditionedDense
