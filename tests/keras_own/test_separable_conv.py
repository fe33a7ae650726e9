import keras_wcond
from tests.keras_own.loading import keras_tests

NAMES = ["SeparableConv1D", "SeparableConv2D"]
separable_test = keras_tests("layers.convolutional.separable_conv_test", *NAMES)


class TestSeparableConvBasics(separable_test.SeparableConvBasicTest):
    def test_the_conditioned_classes_are_the_ones_under_test(self):
        for name in NAMES:
            layer = getattr(separable_test.layers, name)(4, 3)
            assert type(layer) is getattr(keras_wcond, f"Conditioned{name}")
            assert layer.kernel_conditioner is None


class TestSeparableConvCorrectness(separable_test.SeparableConvCorrectnessTest):
    """Every test is Keras' own."""
