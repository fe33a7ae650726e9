import pytest

from keras_wcond import ConditionedConv1D, ConditionedDense
from tests.keras_own.loading import keras_tests

serialization_lib_test = keras_tests("saving.serialization_lib_test", "Dense", "Conv1D")
plain_config = pytest.mark.skip(
    reason="Keras' test asserts the class of a layer whose config names the plain class"
)


class TestSerializationLib(serialization_lib_test.SerializationLibTest):
    def test_the_conditioned_classes_are_the_ones_under_test(self):
        layers = serialization_lib_test.keras.layers
        assert type(layers.Dense(4)) is ConditionedDense
        assert type(layers.Conv1D(4, 3)) is ConditionedConv1D

    test_empty_string_registered_name_passes_through = plain_config(
        serialization_lib_test.SerializationLibTest.test_empty_string_registered_name_passes_through
    )
    test_none_or_missing_registered_name_passes_through = plain_config(
        serialization_lib_test.SerializationLibTest.test_none_or_missing_registered_name_passes_through
    )
    test_registered_name_matching_class_name_passes_through = plain_config(
        serialization_lib_test.SerializationLibTest.test_registered_name_matching_class_name_passes_through
    )
