from keras_wcond import ConditionedDense
from tests.keras_own.loading import keras_tests

variable_mapping_test = keras_tests("models.variable_mapping_test", "Dense")
# The test takes its models from this module.
saving_lib_test = keras_tests("saving.saving_lib_test", "Dense", "EinsumDense")


class TestVariableMapping(variable_mapping_test.VariableMappingTest):
    def test_the_conditioned_class_is_the_one_under_test(self):
        assert variable_mapping_test.saving_lib_test is saving_lib_test
        for layer in saving_lib_test._get_basic_sequential_model().layers:
            assert type(layer) is ConditionedDense
