import keras_wcond
from tests.keras_own.loading import keras_tests

conv_test = keras_tests("layers.convolutional.conv_test", "Conv1D", "Conv2D", "Conv3D")


class TestConvBasics(conv_test.ConvBasicTest):
    def test_the_conditioned_classes_are_the_ones_under_test(self):
        for rank in (1, 2, 3):
            layer = getattr(conv_test.layers, f"Conv{rank}D")(4, 3)
            assert type(layer) is getattr(keras_wcond, f"ConditionedConv{rank}D")
            assert layer.kernel_conditioner is None


class TestConvCorrectness(conv_test.ConvCorrectnessTest):
    """Every test is Keras' own."""
