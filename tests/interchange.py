"""A model whose file every backend has to read as the one that wrote it does.

`python -m tests.interchange` writes the file of the backend in force, with inputs and the
outputs to expect, to `tests/data`.
"""

import pathlib

import keras
import numpy as np

import keras_wcond
from tests.backends import normal

DATA = pathlib.Path(__file__).parent / "data"


def model():
    """One of everything that is saved, with weights that are the same on every backend."""
    layers = [
        keras_wcond.ConditionedConv1D(4, 3, activation="relu", gain="auto"),
        keras_wcond.ConditionedConv1D(6, 3, groups=2, gain="initial_norm", padding="same"),
        keras.layers.Flatten(),
        keras_wcond.ConditionedDense(5, "tanh", gain="kernel_norm", trainable_gain="per_unit"),
        keras.layers.Dense(
            3,
            kernel_initializer=keras_wcond.ConditionedInitializer("he_normal"),
            kernel_constraint=keras_wcond.WeightConditioning(gain=2.0),
        ),
    ]
    built = keras.Sequential([keras.Input((6, 2)), *layers])
    for seed, variable in enumerate(built.variables):
        variable.assign(normal(*variable.shape, seed=seed) + 0.1)
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
