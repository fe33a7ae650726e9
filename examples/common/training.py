"""Training in the examples: settings, optimizers, learning rates, and batches on many devices."""

import dataclasses
import math
import pathlib
from typing import Literal

import keras
import numpy as np

import keras_wcond

# Of all examples.
LAST_LAYERS = ("head", "density", "color")
Gain = float | Literal["auto", "initial_norm", "kernel_norm"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How models are normalized and trained."""

    normalizations: tuple[str, ...] = ("none", "row_equilibration")
    """Which to train and to compare: none, batch or layer; weight_normalization,
    weight_standardization, spectral_normalization, row_equilibration, newton_orthogonalization,
    ...; or two or more joined, as in batch+row_equilibration."""
    gain: Gain = "initial_norm"
    """What conditioned kernels are multiplied by."""
    trainable_gain: Literal["scalar", "per_unit"] | None = None
    """Whether the gain is a weight."""
    initial_scale: float = 1.0
    """Multiplies the initial kernels of the layers that a normalization applies to."""
    penalty: float = 1.0
    """Factor of the normalization orthogonal_regularizer."""
    epochs: int = 10
    """Passes over the training data."""
    batch_size: int = 64
    """Examples a step."""
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    """SGD has Nesterov momentum of 0.9. Muon updates what is no matrix, and the last layer, by
    AdamW. With the normalization orthogonal_updates, those take the place of Muon's iterations."""
    learning_rate: float = 0.1
    """At its peak."""
    part_of_epoch: float = 1.0
    """How much of each epoch's batches is used, for a training that takes less time."""
    warmup_epochs: int = 1
    """Epochs over which the rate rises to its peak; it falls to zero along a cosine."""
    weight_decay: float = 0.0
    """Decoupled, of kernels only. Momentum leaves it alone, so that SGD at 0.9 takes ten times the
    number of an L2 penalty to the same effect."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Keras' dtype policy."""
    distribute: bool = False
    """Splits batches over all devices by keras.distribution.DataParallel (JAX only). Their sizes
    are rounded up to multiples of the number of devices."""
    steps_per_execution: int = 1
    """Steps from one look at the loss to the next, as in `keras.Model.compile`."""
    workers: int = 1
    """Threads that prepare batches."""
    seed: int = 0
    """Of initial weights, order and augmentation."""
    output: pathlib.Path = pathlib.Path("outputs")
    """Folder for what is written."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model.

    Args:
        model: The model.
        history: Losses and scores after each epoch, by name.
        scores: Those on the test data.
        seconds: Of training, compilation included.
    """

    model: keras.Model
    history: dict[str, list[float]]
    scores: dict[str, float]
    seconds: float


def initializer(options: TrainingOptions, factor: float = 2.0):
    """He's initializer, or Glorot's for a factor of 1 and square kernels, times the scale."""
    scale = factor * options.initial_scale**2
    return keras.initializers.VarianceScaling(scale, "fan_in", "truncated_normal")


def optimizer(options: TrainingOptions, model: keras.Model) -> keras.optimizers.Optimizer:
    """The optimizer at the peak rate, which leaves out of decay what is no kernel.

    Args:
        options: The options.
        model: What it is to train, as `normalizations.with_weight_normalization` made it.
    """
    arguments = {"learning_rate": options.learning_rate, "weight_decay": options.weight_decay}
    conditioning = model.optimizer_conditioning or {}
    match options.optimizer:
        case "sgd":
            chosen = keras.optimizers.SGD(momentum=0.9, nesterov=True, **arguments)
        case "adamw":
            chosen = keras.optimizers.AdamW(**arguments)
        case "muon":
            chosen = keras.optimizers.Muon(
                # Biases of attention have two axes, and embedded positions are no kernel.
                exclude_layers=[*(rf"\b{name}/" for name in LAST_LAYERS), "bias", "position"],
                adam_weight_decay=options.weight_decay,
                **arguments,
            )
            if "update_conditioner" in conditioning:
                # The package's iterations in place of Muon's, also of convolutions and attention.
                chosen.ns_steps = 0
                conditioning = conditioning | {"gain": "muon", "layers": _is_not_last}
    if options.weight_decay:
        chosen.exclude_from_weight_decay(
            var_names=["bias", "gain", "gamma", "beta", "position", "token"]
        )
    if conditioning:
        chosen = keras_wcond.condition_optimizer(chosen, model, **conditioning)
    return chosen


def _is_not_last(layer):
    return layer.name not in LAST_LAYERS


def schedule(options: TrainingOptions):
    """A callback that sets each epoch's rate: a linear rise, and a cosine down to zero."""

    def rate(epoch):
        if epoch < options.warmup_epochs:
            return options.learning_rate * (epoch + 1) / (options.warmup_epochs + 1)
        rest = max(options.epochs - options.warmup_epochs, 1)
        fraction = (epoch - options.warmup_epochs) / rest
        return options.learning_rate * 0.5 * (1.0 + math.cos(math.pi * fraction))

    return keras.callbacks.LearningRateScheduler(lambda epoch, _: rate(epoch))


def fit(model, batches, options, callbacks=(), **kwargs) -> dict[str, list[float]]:
    """Trains a compiled model on the schedule, and stops it where the loss is no number."""
    history = model.fit(
        FirstBatches(batches, options.part_of_epoch) if options.part_of_epoch < 1.0 else batches,
        epochs=options.epochs,
        # The batches come in an order of their own seed.
        shuffle=False,
        verbose=0,
        callbacks=[schedule(options), keras.callbacks.TerminateOnNaN(), *callbacks],
        **kwargs,
    ).history
    history.pop("learning_rate", None)
    return history


class FirstBatches(keras.utils.PyDataset):
    """The first batches of each epoch of another dataset.

    Args:
        batches: A `keras.utils.PyDataset`.
        part: Number between 0 and 1.
    """

    def __init__(self, batches: keras.utils.PyDataset, part: float):
        super().__init__(workers=batches.workers)
        self.batches = batches
        self.count = max(math.floor(part * len(batches)), 1)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.batches[index]

    def on_epoch_end(self):
        self.batches.on_epoch_end()


def devices() -> int:
    """How many devices share each batch."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else distribution.device_mesh.devices.size


def shared_evenly(size: int) -> int:
    """The size of a batch, rounded up to what devices can share evenly."""
    return math.ceil(size / devices()) * devices()


def even_part(arrays):
    """As many rows of arrays, from the first on, as devices can share evenly."""
    count = len(arrays[0]) // devices() * devices()
    return tuple(array[:count] for array in arrays)


def predict(model, inputs, batch_size: int):
    """What `model.predict` returns, for as many inputs as there are, on any number of devices."""
    rest = shared_evenly(len(inputs)) - len(inputs)
    padded = np.concatenate([inputs, inputs[:1].repeat(rest, axis=0)]) if rest else inputs
    outputs = model.predict(padded, batch_size=shared_evenly(batch_size), verbose=0)
    return keras.tree.map_structure(lambda output: output[: len(inputs)], outputs)
