import dataclasses

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned
from keras_wcond.kernels.layout import KernelLayout
from keras_wcond.kernels.search import (
    by_position,
    find_kernels,
    kernels_within,
    named_kernels,
    with_unique_paths,
)
from tests.helpers import normal


def built_lstm():
    layer = keras.layers.LSTM(3)
    layer.build((None, 5, 4))
    return layer


def test_paths_that_occur_several_times_are_numbered():
    kernel, *_ = find_kernels(built_lstm())
    paths = ["a", "b", "a", "a", "b"]
    same = [dataclasses.replace(kernel, path=path) for path in paths]
    found = with_unique_paths(same)
    assert [each.path for each in found] == ["a", "b", "a_1", "a_2", "b_1"]
    assert all(each.variable is kernel.variable for each in found)


@pytest.mark.parametrize("weights", ["*kernel", ["lstm_cell/recurrent_kernel", "*/kernel"]])
def test_named_kernels_are_read_as_the_table_says(weights):
    layer = built_lstm()
    found = {kernel.path: kernel.layout for kernel in named_kernels(layer, weights)}
    gates = KernelLayout(blocks=4)
    assert found == {"lstm_cell/kernel": gates, "lstm_cell/recurrent_kernel": gates}


def test_named_kernels_with_axes_are_read_by_these():
    (found,) = named_kernels(built_lstm(), {"lstm_cell/kernel": 0})
    assert found.layout == KernelLayout(0)


def test_positions_are_found_again():
    layer = built_lstm()
    kernels = find_kernels(layer)
    again = named_kernels(layer, by_position(layer, kernels))
    assert [each.variable for each in again] == [each.variable for each in kernels]
    assert [each.layout for each in again] == [each.layout for each in kernels]
    assert [each.holders for each in again] == [each.holders for each in kernels]


def test_owners_are_the_innermost_layers():
    layer = built_lstm()
    assert {kernel.owner for kernel in kernels_within(layer)} == {layer.cell}
    assert {kernel.holders for kernel in kernels_within(layer)} == {(layer, layer.cell)}


def test_quantized_kernels_are_none():
    layer = keras.layers.Dense(3)
    layer.build((None, 4))
    layer.quantize("int8")
    assert kernels_within(layer) == []
    with pytest.raises(ValueError, match=r"no biases.*'kernel' of shape \(4, 3\) and dtype int8"):
        named_kernels(layer, "kernel")


def test_layers_that_are_not_built_are_named():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.first = keras.layers.LayerNormalization(name="first")
            self.second = keras.layers.Dense(3, name="second")

        def call(self, inputs):
            return self.first(inputs)

    message = r"inside it are not built: \['second'\]. Call it once first.$"
    with pytest.raises(ValueError, match=message):
        Conditioned(Block())(np.asarray(normal(2, 4)))
