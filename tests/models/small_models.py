"""A small model with layers of many kinds, and what is to be kept of it."""

import keras
import numpy as np

from tests.helpers import normal, to_numpy
from tests.layers.wrapped_layers import Block

layers = keras.layers


def small():
    """One of everything, with a layer that is shared, a model in the model, and two outputs."""
    inputs = keras.Input((8, 8, 2))
    features = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
        ],
        name="features",
    )
    x = features(inputs)
    x = x + layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Reshape((36, 4))(x)
    shared = layers.Dense(4, name="shared")
    x = shared(shared(x))
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True, name="lstm"), name="recurrent")(
        x
    )
    x = layers.Dropout(0.1)(x)
    x = Block(name="block")(x)
    x = layers.GlobalAveragePooling1D()(x)
    logits = layers.Dense(3, name="logits")(x)
    return keras.Model(inputs, [layers.Softmax()(logits), layers.Dense(1, name="value")(x)])


def moved(model):
    for seed, variable in enumerate(model.weights):
        variable.assign(variable + 0.1 * np.abs(normal(*variable.shape, seed=seed)))
    return model


def state(model):
    """Everything about a model that a conversion might have changed."""
    operations = getattr(model, "operations", model.layers)
    nodes = [len(x._inbound_nodes) + len(x._outbound_nodes) for x in operations]
    values = [to_numpy(variable).copy() for variable in model.variables]
    trainable = [variable.trainable for variable in model.variables]
    return model.get_config(), nodes, values, trainable, [id(layer) for layer in model.layers]


def require_unchanged(model, before):
    after = state(model)
    assert after[:2] == before[:2]
    assert after[3:] == before[3:]
    for value, original in zip(after[2], before[2], strict=True):
        np.testing.assert_array_equal(value, original)
