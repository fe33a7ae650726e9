import keras_wcond
from tests.keras_own.loading import keras_tests

NAMES = [f"Conv{rank}DTranspose" for rank in (1, 2, 3)]
transpose_test = keras_tests("layers.convolutional.conv_transpose_test", *NAMES)


class TestConvTransposeBasics(transpose_test.ConvTransposeBasicTest):
    def test_the_conditioned_classes_are_the_ones_under_test(self):
        for name in NAMES:
            layer = getattr(transpose_test.layers, name)(4, 3)
            assert type(layer) is getattr(keras_wcond, f"Conditioned{name}")
            assert layer.kernel_conditioner is None


class TestConvTransposeCorrectness(transpose_test.ConvTransposeCorrectnessTest):
    """Every test is Keras' own."""
