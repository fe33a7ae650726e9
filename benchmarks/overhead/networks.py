"""What is timed: networks, plain and under each normalization, and their twins elsewhere."""

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any

from keras_wcond import conditioners

PLAIN, AGAIN = "plain", "plain, again"
# As many steps as lie between two conditionings of a stored kernel.
EIGHT_STEPS = "plain, eight steps"
OURS = tuple(conditioners.METHODS)
# One step of minimax polynomials.
ONE_STEP = "polar_express, one step"
VARIANTS = {ONE_STEP: {"steps": 1}}
# The plain network, whose optimizer does something to kernels.
STORED, SELDOM = "newton_step, stored", "newton_step, stored, every 8"
UPDATES, MUON = "polar_express of updates", "keras Muon"
BY_OPTIMIZER = (STORED, SELDOM, UPDATES, MUON)
EVERY = 8
BATCH, LAYER = "BatchNormalization", "LayerNormalization"
SPECTRAL = "keras SpectralNormalization"
BASELINES = (BATCH, LAYER, SPECTRAL)
# By backend, the twins outside of Keras: each is compared with the plain twin.
TORCH_PLAIN, FLAX_PLAIN = "PyTorch, plain", "Flax, plain"
TWINS = {
    "torch": ("PyTorch weight_norm", "PyTorch spectral_norm", "PyTorch orthogonal"),
    "jax": ("Flax WeightNorm",),
}
TWIN_PLAIN = {"torch": TORCH_PLAIN, "jax": FLAX_PLAIN}


@dataclasses.dataclass(frozen=True)
class Case:
    """A network that steps are timed of.

    Args:
        network: Function from (inputs, `Kit`) to outputs, of symbolic tensors.
        shape: Of one input.
        batch: How many of them.
        twins: Sizes for the same network as a PyTorch or Flax module, or None.
    """

    network: Callable[..., Any]
    shape: tuple[int, ...]
    batch: int
    twin: dict[str, int] | None = None

    def model(self, normalization):
        """The Keras model under a normalization: `PLAIN`, one of `OURS` or of `BASELINES`."""
        import keras

        import keras_wcond

        keras.utils.set_random_seed(0)
        inputs = keras.Input(self.shape)
        model = keras.Model(inputs, self.network(inputs, Kit(normalization)))
        if normalization not in (*OURS, *VARIANTS):
            return model
        conditioner = normalization
        if normalization in VARIANTS:
            conditioner = keras_wcond.conditioners.PolarExpress(**VARIANTS[normalization])
        # A gain that is a number, as `ConditionedDense` has, and every layer.
        return keras_wcond.condition_model(model, conditioner, gain=1.0, layers=keras.layers.Layer)

    def optimizer(self, normalization, model, rate):
        """The optimizer of a model: plain SGD, but where the name says otherwise."""
        import keras

        import keras_wcond

        plain = keras.optimizers.SGD(rate)
        arguments = {"layers": keras.layers.Layer}
        match normalization:
            case "keras Muon":
                return keras.optimizers.Muon(rate, weight_decay=None)
            case "polar_express of updates":
                plain = keras.optimizers.SGD(rate, momentum=0.95, nesterov=True)
                arguments |= {"update_conditioner": "polar_express", "gain": "muon"}
            case "newton_step, stored":
                arguments |= {"weight_conditioner": "newton_step"}
            case "newton_step, stored, every 8":
                arguments |= {"weight_conditioner": "newton_step", "every": EVERY}
            case _:
                return plain
        return keras_wcond.condition_optimizer(plain, model, **arguments)


@dataclasses.dataclass(frozen=True)
class Kit:
    """Layers of Keras, under a baseline normalization if one is named."""

    normalization: str

    def __call__(self, layer, x):
        import keras

        if self.normalization == SPECTRAL:
            return keras.layers.SpectralNormalization(layer)(x)
        baselines = {BATCH: keras.layers.BatchNormalization, LAYER: keras.layers.LayerNormalization}
        if self.normalization not in baselines:
            return layer(x)
        activation = layer.activation
        config = {**layer.get_config(), "activation": None, "use_bias": False}
        x = type(layer).from_config(config)(x)
        return keras.layers.Activation(activation)(baselines[self.normalization]()(x))


def dense(width, depth=3):
    def network(x, kit):
        import keras

        for _ in range(depth):
            x = kit(keras.layers.Dense(width, activation="relu"), x)
        return x

    return network


def convolution(channels, depth=3):
    def network(x, kit):
        import keras

        for _ in range(depth):
            x = kit(keras.layers.Conv2D(channels, 3, padding="same", activation="relu"), x)
        return x

    return network


def residual_block(channels):
    """He et al. 2016, the basic block; its batch norm is the baseline's."""

    def network(x, kit):
        import keras

        y = kit(keras.layers.Conv2D(channels, 3, padding="same", activation="relu"), x)
        y = kit(keras.layers.Conv2D(channels, 3, padding="same"), y)
        return keras.layers.Activation("relu")(keras.layers.Add()([x, y]))

    return network


def transformer_block(size, heads):
    """Of a vision transformer: its layer norms belong to it, and are in all of them."""

    def network(x, kit):
        import keras

        y = keras.layers.LayerNormalization()(x)
        x = keras.layers.Add()([x, keras.layers.MultiHeadAttention(heads, size // heads)(y, y)])
        y = keras.layers.LayerNormalization()(x)
        y = kit(keras.layers.Dense(4 * size, activation="gelu"), y)
        return keras.layers.Add()([x, kit(keras.layers.Dense(size), y)])

    return network


CASES = {
    **{
        f"Dense {width}, batch {batch}": Case(
            dense(width), (width,), batch, {"width": width, "depth": 3}
        )
        for width in (256, 1024, 4096)
        for batch in (32, 128, 1024)
    },
    **{
        f"Conv2D {channels}, 32 × 32, batch 16": Case(
            convolution(channels), (32, 32, channels), 16, {"channels": channels, "depth": 3}
        )
        for channels in (16, 64, 256)
    },
    "ResNet block, 64 channels, 32 × 32, batch 16": Case(residual_block(64), (32, 32, 64), 16),
    "ViT-S block, 197 tokens, batch 8": Case(transformer_block(384, 6), (197, 384), 8),
    "ViT-S block, 197 tokens, batch 32": Case(transformer_block(384, 6), (197, 384), 32),
    "Deep network 20 × 64, batch 128": Case(dense(64, 20), (64,), 128, {"width": 64, "depth": 20}),
    "NeRF MLP 8 × 256, batch 4096": Case(dense(256, 8), (256,), 4096, {"width": 256, "depth": 8}),
}


def torch_twin(case, name):
    """The network as a PyTorch module, each layer under a parametrization of PyTorch's own."""
    import torch
    from torch.nn.utils import parametrizations

    torch.manual_seed(0)
    normalize = {
        TORCH_PLAIN: lambda layer: layer,
        "PyTorch weight_norm": parametrizations.weight_norm,
        "PyTorch spectral_norm": parametrizations.spectral_norm,
        "PyTorch orthogonal": parametrizations.orthogonal,
    }[name]
    layers = []
    for _ in range(case.twin["depth"]):
        if "width" in case.twin:
            layer = torch.nn.Linear(case.twin["width"], case.twin["width"])
        else:
            layer = torch.nn.Conv2d(case.twin["channels"], case.twin["channels"], 3, padding=1)
        layers += [normalize(layer), torch.nn.ReLU()]
    # PyTorch has channels before space.
    shape = case.shape if len(case.shape) == 1 else (case.shape[-1], *case.shape[:-1])
    return torch.nn.Sequential(*layers), shape


def flax_twin(case, name):
    """The network as a Flax module."""
    from flax import linen

    layers = []
    for _ in range(case.twin["depth"]):
        if "width" in case.twin:
            layer = linen.Dense(case.twin["width"])
        else:
            layer = linen.Conv(case.twin["channels"], (3, 3))
        layers += [layer if name == FLAX_PLAIN else linen.WeightNorm(layer), linen.relu]
    return linen.Sequential(layers), case.shape


def normalizations(case, backend):
    """What runs beside the plain network in a case, in the order of its rounds."""
    twins = ()
    has_twins = backend == "torch" or importlib.util.find_spec("flax") is not None
    if case.twin is not None and backend in TWINS and has_twins:
        twins = (TWIN_PLAIN[backend], *TWINS[backend])
    return (*OURS, *VARIANTS, *BY_OPTIMIZER, *BASELINES, AGAIN, *twins)


def plain_of(normalization):
    """The network that a ratio is over."""
    if normalization == SELDOM:
        return EIGHT_STEPS
    if normalization.startswith("PyTorch"):
        return TORCH_PLAIN
    return FLAX_PLAIN if normalization.startswith("Flax") else PLAIN
