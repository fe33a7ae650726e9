"""A model whose file every backend has to read as the one that wrote it does.

`python -m tests.interchange` writes the file of the backend in force, with inputs and the
outputs to expect, to `tests/data`.
"""

import pathlib

import keras
import numpy as np

import keras_wcond
from tests.helpers import normal

DATA = pathlib.Path(__file__).parent / "data"


def model():
    """One of everything that is saved, with weights that are the same on every backend."""
    tensor = x = keras.Input((6, 2))
    for layer in [
        keras_wcond.ConditionedConv1D(4, 3, activation="relu", gain="auto", padding="same"),
        keras_wcond.ConditionedConv1D(6, 3, groups=2, gain="initial_norm", padding="same"),
        keras_wcond.ConditionedDepthwiseConv1D(3, depth_multiplier=2, activation="tanh"),
        keras_wcond.ConditionedConv1DTranspose(4, 3, trainable_gain="scalar"),
        keras_wcond.ConditionedSeparableConv1D(4, 3, gain="initial_norm", activation="tanh"),
        keras_wcond.ConditionedEinsumDense("abc,cd->abd", (None, 5), bias_axes="d"),
    ]:
        x = layer(x)
    x = keras_wcond.ConditionedMultiHeadAttention(2, 3, gain="initial_norm")(x, x)
    x = keras_wcond.ConditionedGroupQueryAttention(3, 4, 2, trainable_gain="per_unit")(x, x)
    for layer in [
        keras_wcond.Conditioned(
            keras.layers.GRU(4, return_sequences=True, name="gru"), gain="initial_norm"
        ),
        keras_wcond.Conditioned(
            keras.layers.Bidirectional(keras.layers.LSTM(3, name="lstm"), name="both"),
            weights="*/kernel",
        ),
        keras_wcond.ConditionedDense(5, "tanh", gain="kernel_norm", trainable_gain="per_unit"),
        keras.layers.Dense(
            3,
            kernel_initializer=keras_wcond.ConditionedInitializer("he_normal"),
            kernel_constraint=keras_wcond.WeightConditioning(gain=2.0),
        ),
    ]:
        x = layer(x)
    built = keras.Model(tensor, x)
    for seed, weight in enumerate(built.weights):
        weight.assign(normal(*weight.shape, seed=seed) + 0.1)
    return built


def inputs():
    return normal(8, 6, 2, seed=99)


def main():
    DATA.mkdir(exist_ok=True)
    backend = keras.backend.backend()
    written = model()
    written.save(DATA / f"{backend}.keras")
    np.savez(DATA / f"{backend}.npz", outputs=written.predict(inputs(), verbose=0))


if __name__ == "__main__":
    main()
