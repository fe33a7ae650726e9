"""Layers to wrap in `Conditioned`, with inputs and the axes of each kernel."""

import keras
import numpy as np
import pytest

from tests.helpers import normal

layers = keras.layers


SEQUENCES = normal(4, 7, 3)


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    """A kernel of its own, inner layers with names that Keras gives, and state."""

    def __init__(self, units=5, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units, activation="relu")
        self.norm = layers.BatchNormalization()
        self.dropout = layers.Dropout(0.5)
        self.second = layers.Dense(4)

    def build(self, input_shape):
        size = input_shape[-1]
        self.mixing = self.add_weight(name="mixing", shape=(size, size))
        inner_shape = (*input_shape[:-1], self.units)
        self.first.build(input_shape)
        self.norm.build(inner_shape)
        self.second.build(inner_shape)

    def call(self, inputs, training=None):
        hidden = self.first(keras.ops.matmul(inputs, self.mixing))
        hidden = self.dropout(self.norm(hidden, training=training), training=training)
        return self.second(hidden)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("tests")
class BuiltByCall(layers.Layer):
    """Without a `build`, as layers often are written."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(5, activation="relu"), layers.Dense(4)

    def call(self, inputs):
        return self.second(self.first(inputs))


@keras.saving.register_keras_serializable("tests")
class BuiltInPart(BuiltByCall):
    """Its `build` makes a weight, and leaves its layers to be built by the call."""

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(1,), initializer="ones")
        self.first.build(input_shape)

    def call(self, inputs):
        return super().call(inputs) * self.scale


@keras.saving.register_keras_serializable("tests")
class Tokens(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding, self.projection = layers.Embedding(9, 3), layers.Dense(4)

    def build(self, input_shape):
        self.embedding.build(input_shape)
        self.projection.build((*input_shape, 3))

    def call(self, tokens):
        return self.projection(self.embedding(tokens))


TOKENS = np.random.default_rng(0).integers(0, 9, size=(4, 7)).astype("int32")


FRAMES = normal(4, 3, 6, 2)


# A layer, its inputs, and the axes of each kernel it is to find.
WRAPPED = {
    "SimpleRNN": (
        lambda: layers.SimpleRNN(4),
        SEQUENCES,
        {"simple_rnn_cell/kernel": "iu->u", "simple_rnn_cell/recurrent_kernel": "iu->u"},
    ),
    "LSTM": (
        lambda: layers.LSTM(4, return_sequences=True),
        SEQUENCES,
        {"lstm_cell/kernel": "iu->u", "lstm_cell/recurrent_kernel": "iu->u"},
    ),
    "GRU": (
        lambda: layers.GRU(4),
        SEQUENCES,
        {"gru_cell/kernel": "iu->u", "gru_cell/recurrent_kernel": "iu->u"},
    ),
    "RNN of a cell": (
        lambda: layers.RNN(layers.LSTMCell(4, name="cell")),
        SEQUENCES,
        {"cell/kernel": "iu->u", "cell/recurrent_kernel": "iu->u"},
    ),
    "ConvLSTM1D": (
        lambda: layers.ConvLSTM1D(4, 3),
        FRAMES,
        {"conv_lstm_cell/kernel": "kiu->u", "conv_lstm_cell/recurrent_kernel": "kiu->u"},
    ),
    "Bidirectional": (
        lambda: layers.Bidirectional(layers.LSTM(4, name="lstm")),
        SEQUENCES,
        {
            "forward_lstm/lstm_cell/kernel": "iu->u",
            "forward_lstm/lstm_cell/recurrent_kernel": "iu->u",
            "backward_lstm/lstm_cell/kernel": "iu->u",
            "backward_lstm/lstm_cell/recurrent_kernel": "iu->u",
        },
    ),
    "TimeDistributed": (
        lambda: layers.TimeDistributed(layers.Conv1D(4, 3, name="conv")),
        FRAMES,
        {"conv/kernel": "kiu->u"},
    ),
    "Embedding": (lambda: layers.Embedding(9, 3), TOKENS, {"embeddings": "td->t"}),
    "Dense": (lambda: layers.Dense(4), SEQUENCES, {"kernel": "iu->u"}),
    "SeparableConv1D": (
        lambda: layers.SeparableConv1D(4, 3),
        SEQUENCES,
        {"depthwise_kernel": "kcm->cm", "pointwise_kernel": "kiu->u"},
    ),
    "Sequential": (
        lambda: keras.Sequential([layers.Dense(5, name="one"), layers.Dense(4, name="two")]),
        SEQUENCES,
        {"one/kernel": "iu->u", "two/kernel": "iu->u"},
    ),
    "a layer of one's own": (Block, SEQUENCES, {"dense": "iu->u", "dense_1": "iu->u"}),
    "a layer built by its call": (BuiltByCall, SEQUENCES, {"dense": "iu->u", "dense_1": "iu->u"}),
    "a layer built in part": (BuiltInPart, SEQUENCES, {"dense": "iu->u", "dense_1": "iu->u"}),
    "a layer with an embedding": (Tokens, TOKENS, {"dense": "iu->u"}),
}


every_wrapped = pytest.mark.parametrize("case", WRAPPED.values(), ids=WRAPPED.keys())


def model_of(layer, inputs):
    tensor = keras.Input(inputs.shape[1:], dtype=str(inputs.dtype))
    return keras.Model(tensor, layers.Flatten()(layer(tensor)))
