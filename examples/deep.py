"""Image classification by deep plain networks, where the spectrum of the weights decides.

Many fully connected layers have one width, and by default no normalization of activations. The
effects of all layers on the gradient are multiplied over the depth. Weights are normalized in all
layers except the first and the last one. The data are scikit-learn's digits or any image dataset
of TFDS. The script trains one model for each of --normalizations, prints a table and saves a
picture. Set KERAS_BACKEND to choose the Keras backend.
"""

import dataclasses
import functools
import sys
from typing import Literal

import keras
import numpy as np
from keras import layers

from common import command_line, normalizations, training
from common.classification import ClassificationOptions, draw, evaluate, load_data, train

__all__ = ["RECIPES", "Options", "build", "draw", "evaluate", "load_data", "train"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ClassificationOptions):
    """A deep plain network, its images and its training."""

    depth: int = 20
    """Hidden layers, of which the first one stays plain."""
    width: int = 64
    """Units of each."""
    activation: Literal["linear", "tanh", "relu"] = "tanh"
    """Of each."""
    start: Literal["fresh", "badly_scaled", "fine_tuned", "pruned"] = "fresh"
    """What training starts from: fresh weights; those whose rows differ in norm by random
    factors; a network trained on the negatives of the images; one trained on the images, of
    whose hidden weights the smaller nine in ten were then set to zero, from where they may grow
    again (Han et al. 2017)."""


def build(normalization, data, options):
    """A network of the options under a normalization, such as "polynomial_preconditioner"."""
    chosen = normalizations.parse(normalization)
    # He et al. 2015 for ReLU; unit gain for the others.
    factor = 2.0 if options.activation == "relu" else 1.0
    inputs = keras.Input(data.shape)
    x = layers.Flatten()(inputs)
    for index in range(options.depth):
        # The first layer reads pixels, so that its scale is not that of the others.
        plain = dataclasses.replace(options, initial_scale=1.0) if index == 0 else options
        x = layers.Dense(
            options.width,
            kernel_initializer=training.initializer(plain, factor),
            kernel_constraint=normalizations.kernel_constraint(chosen) if index else None,
            name="first" if index == 0 else f"hidden_{index}",
        )(x)
        norm = normalizations.activation_normalization(chosen)
        x = x if norm is None else norm(x)
        x = layers.Activation(options.activation)(x)
    model = keras.Model(inputs, layers.Dense(len(data.classes), name="head")(x))
    set_start(model, normalization, data, options)
    return normalizations.with_weight_normalization(
        model, chosen, "hidden_*", options.gain, options.trainable_gain, options.penalty
    )


def set_start(model, normalization, data, options):
    """Gives a plain network the weights that its training is to start from."""
    if options.start == "fresh":
        return
    if options.start in ("fine_tuned", "pruned"):
        # The same for all normalizations, and for all rates that they are trained at.
        names = ("normalizations", "gain", "trainable_gain", "initial_scale", "output", "optimizer")
        free = {name: getattr(Options(), name) for name in names}
        before = dataclasses.replace(options, **free, learning_rate=START_RATE)
        activations = normalizations.parse(normalization).activations
        model.set_weights(weights_before(data, before, activations))
    rng = np.random.default_rng(options.seed)
    for layer in model.layers:
        if not layer.name.startswith("hidden_"):
            continue
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        match options.start:
            case "badly_scaled":
                scaled = kernel * np.exp(rng.normal(size=kernel.shape[-1]))
                kernel = scaled * (np.linalg.norm(kernel) / np.linalg.norm(scaled))
            case "fine_tuned":
                kernel = kernel * options.initial_scale
            case "pruned":
                least = np.quantile(np.abs(kernel), 0.9)
                kernel = np.where(np.abs(kernel) > least, kernel, 0.0) * options.initial_scale
        layer.kernel.assign(kernel)


@functools.lru_cache(maxsize=8)
def weights_before(data, options, activations):
    """The weights of a network with plain kernels that was trained before."""
    if options.start == "fine_tuned":
        # By which pixels are divided: bright ones become dark.
        data = dataclasses.replace(data, deviation=-data.deviation)
    options = dataclasses.replace(options, start="fresh")
    model = build(activations, data, options)
    train(model, data, options)
    return model.get_weights()


START_RATE = 0.01
_THREE = ("none", "row_equilibration", "polynomial_preconditioner")
_FASHION = Options(
    data="fashion_mnist", normalizations=_THREE, gain="kernel_norm", downscale=2, augment=False,
    train_images=10_000, epochs=10, batch_size=128, learning_rate=0.01,
)  # fmt: skip
RECIPES = {
    "digits": (
        "Twenty tanh layers on scikit-learn's digits; nothing to download.",
        Options(normalizations=_THREE, gain="kernel_norm", augment=False, epochs=30,
                learning_rate=0.01),
    ),
    "fashion_mnist": ("Twenty tanh layers on 10,000 images of Fashion-MNIST.", _FASHION),
    "fashion_mnist_50": (
        "Fifty tanh layers on all images of Fashion-MNIST.",
        dataclasses.replace(_FASHION, train_images=None, depth=50, learning_rate=3e-3, epochs=20),
    ),
    "cifar10": (
        "Fifty ReLU layers of 512 units on CIFAR-10.",
        dataclasses.replace(
            _FASHION, data="cifar10", downscale=1, train_images=None, depth=50, width=512,
            activation="relu", epochs=50, learning_rate=3e-3, warmup_epochs=5,
        ),
    ),
}  # fmt: skip

if __name__ == "__main__":
    command_line.main(sys.modules[__name__])
