import keras_wcond
from tests.keras_own.loading import keras_tests

NAMES = ["DepthwiseConv1D", "DepthwiseConv2D"]
depthwise_test = keras_tests("layers.convolutional.depthwise_conv_test", *NAMES)


class TestDepthwiseConvBasics(depthwise_test.DepthwiseConvBasicTest):
    def test_the_conditioned_classes_are_the_ones_under_test(self):
        for name in NAMES:
            layer = getattr(depthwise_test.layers, name)(3)
            assert type(layer) is getattr(keras_wcond, f"Conditioned{name}")
            assert layer.kernel_conditioner is None


class TestDepthwiseConvCorrectness(depthwise_test.DepthwiseConvCorrectnessTest):
    """Every test is Keras' own."""
