"""Networks of coordinates, shared by the radiance field and the shape.

Options, activations and the initial weights that suit them, and layers of one width.
"""

import dataclasses
from typing import Literal

import keras
import numpy as np
from keras import layers, ops

from common import training


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoordinateOptions(training.TrainingOptions):
    """A network of coordinates and its training."""

    epochs: int = 10
    """Each of them is `steps_per_epoch` steps."""
    depth: int = 4
    """Hidden layers."""
    width: int = 128
    """Units of each."""
    activation: Literal["relu", "gaussian", "sine"] = "gaussian"
    """Of the hidden layers."""
    gaussian_width: float = 0.2
    """The number a of exp(−x²/2a²)."""
    sine_frequency: float = 30.0
    """The number ω of sin(ωx)."""
    steps_per_epoch: int = 100
    """Steps after which scores are written down."""


@keras.saving.register_keras_serializable("keras_wcond_examples")
class Gaussian(layers.Layer):
    """exp(−x²/2a²), of Ramasinghe and Lucey 2022.

    Args:
        width: The number a, in units of the input.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(self, width=0.1, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def call(self, x):
        return ops.exp(-0.5 * ops.square(x / self.width))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("keras_wcond_examples")
class Sine(layers.Layer):
    """sin(ωx), of Sitzmann et al. 2020.

    Args:
        frequency: The number ω, in radians per unit of the input.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(self, frequency=30.0, **kwargs):
        super().__init__(**kwargs)
        self.frequency = frequency

    def call(self, x):
        return ops.sin(self.frequency * x)

    def get_config(self):
        return {**super().get_config(), "frequency": self.frequency}


def activation(options):
    """A new layer of the activation that the options name."""
    match options.activation:
        case "gaussian":
            return Gaussian(options.gaussian_width)
        case "sine":
            return Sine(options.sine_frequency)
    return layers.ReLU()


def initializer(options, inputs, first=False):
    """What suits the activation: He's; for sines, uniform within √6/(ω √inputs).

    The first layer sets the bandwidth of the network: the scale leaves it alone. For sines it is
    uniform within 1/inputs.
    """
    scale = 1.0 if first else options.initial_scale
    match options.activation:
        case "sine" if first:
            return keras.initializers.RandomUniform(-1.0 / inputs, 1.0 / inputs)
        case "sine":
            variance = 2.0 * (scale / options.sine_frequency) ** 2
            return keras.initializers.VarianceScaling(variance, "fan_in", "uniform")
        case "gaussian":
            return keras.initializers.VarianceScaling(scale**2, "fan_avg", "uniform")
    return keras.initializers.VarianceScaling(2.0 * scale**2, "fan_in", "truncated_normal")


def hidden(x, options, name, first=False, constraint=None, precise=False):
    """A fully connected layer with its activation; the first, and precise ones, in float32.

    Coordinates of eight or eleven bits would be steps that the network could see.
    """
    x = layers.Dense(
        options.width,
        kernel_initializer=initializer(options, x.shape[-1], first),
        kernel_constraint=None if first else constraint,
        name=name,
        dtype="float32" if first or precise else None,
    )(x)
    return activation(options)(x)


def positional_encoding(x, frequencies):
    """x, and sines and cosines of 2^k π x for k below `frequencies`: (…, d) to (…, d + 2dk)."""
    angles = x[..., None, :] * ops.convert_to_tensor(
        (np.pi * 2.0 ** np.arange(frequencies))[:, None], x.dtype
    )
    waves = ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)
    waves = ops.reshape(waves, (*ops.shape(x)[:-1], 2 * frequencies * x.shape[-1]))
    return ops.concatenate([x, waves], axis=-1)


class RandomBatches(keras.utils.PyDataset):
    """Batches drawn with replacement from arrays, anew every epoch.

    Args:
        arrays: (inputs, targets), arrays of n rows.
        options: The options, whose `steps_per_epoch`, `batch_size`, `seed` and `workers` are read.
    """

    def __init__(self, arrays, options):
        super().__init__(workers=options.workers)
        self.arrays, self.options, self.epoch = arrays, options, 0

    def on_epoch_end(self):
        self.epoch += 1

    def __len__(self):
        return self.options.steps_per_epoch

    def __getitem__(self, index):
        rng = np.random.default_rng((self.options.seed, self.epoch, index))
        batch_size = training.shared_evenly(self.options.batch_size)
        chosen = rng.integers(0, len(self.arrays[0]), batch_size)
        return tuple(array[chosen] for array in self.arrays)
