"""Layers that `Conditioned` refuses, and why."""

import keras
import pytest

from keras_wcond import Conditioned, ConditionedDense
from tests.helpers import normal
from tests.layers.wrapped_layers import SEQUENCES, layers


def test_layers_built_after_the_kernels_were_searched_are_refused():
    class Late(layers.Layer):
        def __init__(self):
            super().__init__(name="late")
            self.first, self.second = layers.Dense(3), layers.Dense(3, name="second")

        def build(self, input_shape):
            self.first.build(input_shape)

        def call(self, inputs, training=None):
            return self.second(self.first(inputs)) if training else self.first(inputs)

    wrapped = Conditioned(Late())
    wrapped(SEQUENCES)
    wrapped(SEQUENCES, training=True)
    with pytest.raises(ValueError, match=r"layer.name='late', of which \['second'\] were built"):
        wrapped(SEQUENCES)


BAD = {
    "no kernel": (
        lambda: Conditioned(layers.BatchNormalization(name="norm")),
        r"kernels are known.*Received: layer.name='norm' of type BatchNormalization"
        r".*'gamma', 'beta'.*Name those that are kernels.*have to be named as well\.$",
    ),
    "nothing that can be named": (
        lambda: Conditioned(layers.Dense(4), weights=[]),
        r"`weights` to be None, a pattern.*Received: weights=\[\]",
    ),
    "no match": (
        lambda: Conditioned(layers.Dense(4, name="mine"), weights="kernels"),
        r"match a weight of layer 'mine'. Received: weights='kernels', of which 'kernels' "
        r"matches none of \['kernel', 'bias'\]",
    ),
    "a bias": (
        lambda: Conditioned(layers.Dense(4), weights="*"),
        r"no biases. Received: pattern '\*', which matches 'bias' of shape \(4,\)",
    ),
    "a bias with two axes": (
        lambda: Conditioned(layers.GRU(4), weights="*/bias"),
        r"no biases. Received: pattern '\*/bias', which matches 'gru_cell/bias' of shape \(2, 12\)",
    ),
    "named twice": (
        lambda: Conditioned(layers.Dense(4), weights=["kernel", "k*"]),
        r"named once. Received: weights=\['kernel', 'k\*'\], which names 'kernel' twice",
    ),
    "no pattern": (
        lambda: Conditioned(layers.Dense(4), weights=3),
        r"`weights` to be None, a pattern.*Received: weights=3",
    ),
    "wrong axes": (
        lambda: Conditioned(layers.Dense(4), weights={"kernel": 5}),
        r"unit axes within the kernel's 2 axes. Received: unit_axes=\(5,\)",
    ),
    "a conditioned layer": (
        lambda: Conditioned(ConditionedDense(4, name="mine")),
        r"not conditioned yet. Received: layer.name='mine', whose 'kernel' already is",
    ),
    "a conditioned layer inside": (
        lambda: Conditioned(keras.Sequential([ConditionedDense(4), layers.Dense(3)])),
        r"not conditioned yet.*whose 'conditioned_dense.*/kernel' already is",
    ),
    "wrapped twice": (
        lambda: Conditioned(Conditioned(layers.LSTM(4))),
        r"not conditioned yet.*/kernel' already is by a layer inside it",
    ),
    "spectral normalization inside": (
        lambda: Conditioned(layers.SpectralNormalization(layers.Dense(4))),
        r"not conditioned yet.*/kernel' already is by a layer inside it",
    ),
    "an automatic gain": (
        lambda: Conditioned(layers.LSTM(4), gain="auto"),
        r"not just one activation belongs. Received: gain='auto' for 'lstm_cell/kernel'",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_conditioned_is_refused(make, message):
    layer = make()
    with pytest.raises(ValueError, match=message):
        layer(SEQUENCES)


def test_what_is_no_layer_is_refused():
    with pytest.raises(ValueError, match="isn't a supported layer type"):
        Conditioned(keras.activations.relu)


def test_unbuilt_layer_is_refused():
    layer = Conditioned(layers.LSTM(4), name="mine")
    message = r"Expected a built layer.*layer.name='mine'"
    with pytest.raises(AttributeError, match=message):
        _ = layer.conditioned_kernels
    with pytest.raises(ValueError, match=message):
        layer.fold()


@pytest.mark.parametrize(
    "cell",
    [
        lambda: layers.LSTMCell(4, dropout=0.5),
        lambda: layers.StackedRNNCells([layers.GRUCell(3), layers.LSTMCell(4, dropout=0.5)]),
    ],
)
def test_cell_with_dropout_is_refused(cell):
    with pytest.raises(ValueError, match=r"cell without dropout.*dropout=0.5, recurrent_dropout"):
        Conditioned(cell())


def test_bidirectional_around_a_conditioned_layer_is_refused():
    message = r"Received: go_backwards=True.*Conditioned\(Bidirectional\(layer\)\)"
    with pytest.raises(ValueError, match=message):
        layers.Bidirectional(Conditioned(layers.LSTM(4)))


def test_kernel_that_is_not_read_is_refused():
    class Unused(layers.Dense):
        def call(self, inputs):
            return keras.ops.matmul(inputs, keras.ops.ones(self.kernel.shape))

    class Ignored(layers.Layer):
        def __init__(self):
            super().__init__()
            self.used, self.ignored = layers.Dense(4), layers.Dense(4, name="ignored")

        def build(self, input_shape):
            self.used.build(input_shape)
            self.ignored.build(input_shape)

        def call(self, inputs):
            return self.used(inputs)

    message = r"reads the kernels that are conditioned.*did not read \['ignored/kernel'\].*weights="
    with pytest.raises(ValueError, match=message):
        Conditioned(Ignored())(normal(2, 3))
    chosen = Conditioned(Ignored(), weights="dense*/kernel")
    assert chosen(normal(2, 3)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"did not read \['kernel'\]"):
        Conditioned(Unused(4))(normal(2, 3))
