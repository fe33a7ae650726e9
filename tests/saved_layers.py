"""One model with every kind of conditioned layer, and the files that version 0.1.0 wrote of it.

`python -m tests.saved_layers` writes them, with the outputs to expect, to `tests/data`.
"""

import itertools

import keras
import numpy as np

import keras_wcond
from tests.interchange import DATA
from tests.layers.cases import CASES

NAME = "every-layer"
# Without a gain that is a weight, and with both kinds of one.
SETTINGS = (
    {"kernel_conditioner": "weight_standardization"},
    {"gain": "initial_norm"},
    {"gain": "initial_norm", "trainable_gain": "per_unit"},
)
WRAPPED = {
    "dense": lambda: keras.layers.Dense(3),
    "lstm": lambda: keras.layers.LSTM(3),
    "bidirectional": lambda: keras.layers.Bidirectional(keras.layers.GRU(2)),
    "sequential": lambda: keras.Sequential([keras.layers.Conv1D(2, 3), keras.layers.Dense(2)]),
}


def model():
    """Each layer as a branch of its own, with weights that are the same on every backend."""
    inputs, outputs = [], []
    settings = itertools.cycle(SETTINGS)
    for case in _cases():
        tensors = [keras.Input(shape) for shape in case.input_shapes]
        layer = case.conditioned(**case.arguments, **next(settings))
        inputs += tensors
        outputs.append(keras.layers.Flatten()(layer(*tensors)))
    tensor = keras.Input((6, 2))
    inputs.append(tensor)
    for make in WRAPPED.values():
        wrapped = keras_wcond.Conditioned(make(), **next(settings))
        outputs.append(keras.layers.Flatten()(wrapped(tensor)))
    built = keras.Model(inputs, keras.layers.Concatenate()(outputs))
    for seed, weight in enumerate(built.weights):
        weight.assign(np.random.default_rng(seed).normal(size=weight.shape) + 0.1)
    return built


def arrays():
    shapes = [shape for case in _cases() for shape in case.input_shapes]
    return [
        np.random.default_rng(seed).normal(size=(2, *shape)).astype("float32")
        for seed, shape in enumerate([*shapes, (6, 2)])
    ]


def _cases():
    return [case for name, case in CASES.items() if name != "Dense, wide"]


def main():
    written = model()
    written.save(DATA / f"{NAME}.keras")
    written.save_weights(DATA / f"{NAME}.weights.h5")
    np.savez(DATA / f"{NAME}.npz", outputs=written.predict(arrays(), verbose=0))


if __name__ == "__main__":
    main()
