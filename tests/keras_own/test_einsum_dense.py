from keras_wcond import ConditionedEinsumDense
from tests.keras_own.loading import keras_tests

einsum_dense_test = keras_tests("layers.core.einsum_dense_test", "EinsumDense")


class TestEinsumDense(einsum_dense_test.EinsumDenseTest):
    def test_the_conditioned_class_is_the_one_under_test(self):
        layer = einsum_dense_test.layers.EinsumDense("ab,bc->ac", 4)
        assert type(layer) is ConditionedEinsumDense
        assert layer.kernel_conditioner is None
