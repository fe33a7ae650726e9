"""The normalizations that the examples offer, by name.

A name joins the normalization of activations and those of weights with plus signs: "none", "batch",
"row_equilibration", "batch+weight_standardization",
"layer+row_equilibration+newton_orthogonalization". A modifier may follow:

- "everywhere" conditions first and last layers as well.
- "constraint" equilibrates the stored kernels after each update.
- "at_start" makes the plain network that starts from the conditioned kernels.
- "stored" starts from kernels that the method was applied to many times, and applies it to the
  stored kernels after every eighth update.
- "differentiated" lets the gradient pass through the multiplier of a matrix method.
- "orthogonal_updates" makes the updates of kernels orthogonal, at the norm that they had or at
  Muon's. It may also stand alone.
"""

import dataclasses
from typing import Any

import keras
import numpy as np

import keras_wcond

ACTIVATIONS = ("none", "batch", "layer")
# What is known under a name of its own, as the arguments of `condition_model`.
WEIGHT_NORMALIZATION = {
    "kernel_conditioner": "row_equilibration",
    "gain": "initial_norm",
    "trainable_gain": "per_unit",
}
# Newton's iteration without the centering of rows that belongs to it, which is what weight
# standardization does: how much of the method is the narrower spectrum?
UNCENTERED = "uncentered_newton_orthogonalization"
CONDITIONERS = {
    UNCENTERED: keras_wcond.conditioners.NewtonOrthogonalization(center=False),
    "one_step_polar_express": keras_wcond.conditioners.PolarExpress(steps=1, center=True),
    "centered_newton_step": keras_wcond.conditioners.NewtonStep(center=True),
}
# What no layer does in its forward pass.
AROUND = (
    # Keras' initializer, at the norm that the kernel had.
    "orthogonal_initializer",
    # Keras' regularizer.
    "orthogonal_regularizer",
)
WEIGHTS = (
    "weight_normalization",
    *keras_wcond.conditioners.METHODS,
    *CONDITIONERS,
    *AROUND,
)
# Those that need no method of the forward pass, and those that do.
ALONE = ("constraint", "orthogonal_updates")
MODIFIERS = (*ALONE, "everywhere", "at_start", "stored", "differentiated")
# How many updates lie between two steps of a stored kernel, and how many steps come before.
EVERY, STEPS_AT_START = 8, 20
UPDATES = keras_wcond.conditioners.PolarExpress(steps=3, lower=1e-2)


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What is done to activations, and to weights.

    Args:
        activations: `"none"`, `"batch"` or `"layer"`.
        weights: Names of methods, applied one after the other.
        everywhere: Whether the methods apply to every layer that has a kernel.
        constraint: Whether the stored kernels are kept row-equilibrated.
        at_start: Whether the methods are applied once, before training.
        stored: Whether the methods are applied to the stored kernels.
        differentiated: Whether the gradient passes through multipliers.
        orthogonal_updates: Whether the updates of kernels become orthogonal.
    """

    activations: str = "none"
    weights: tuple[str, ...] = ()
    everywhere: bool = False
    constraint: bool = False
    at_start: bool = False
    stored: bool = False
    differentiated: bool = False
    orthogonal_updates: bool = False


def parse(name: str) -> Normalization:
    """The normalization of a name."""
    first, *others = name.split("+")
    weights = others if first in ACTIVATIONS else [first, *others]
    modifiers = [weight for weight in weights if weight in MODIFIERS]
    weights = [weight for weight in weights if weight not in MODIFIERS]
    alone = ("weight_normalization", *AROUND)
    is_unknown = any(weight not in WEIGHTS for weight in weights)
    is_alone = len(weights) > 1 and set(alone) & set(weights)
    needs_method = {*modifiers} - {*ALONE}
    if is_unknown or is_alone or (needs_method and not weights):
        raise ValueError(
            f"Expected a normalization: one of {', '.join(ACTIVATIONS)}, or of "
            f"{', '.join(WEIGHTS)}, or one of the former and some of the latter joined by '+'; "
            f"{' and '.join(alone)} stand alone among the latter. {' and '.join(ALONE)} may "
            f"follow, and {', '.join(MODIFIERS)} after the latter. Received: normalization={name!r}"
        )
    return Normalization(
        activations=first if first in ACTIVATIONS else "none",
        weights=tuple(weights),
        **{modifier: modifier in modifiers for modifier in MODIFIERS},
    )


def activation_normalization(normalization: Normalization, name: str | None = None):
    """A new layer that normalizes activations, or None; channels are the last axis."""
    match normalization.activations:
        case "batch":
            # A short memory, since short runs have few batches; ImageNet's usual one as well.
            return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)
        case "layer":
            return keras.layers.LayerNormalization(epsilon=1e-6, name=name)
    return None


def kernel_constraint(normalization: Normalization):
    """The constraint of a Dense or Conv2D layer, or None.

    Alone it keeps the norm that a kernel has; of a kernel that is conditioned in the forward
    pass, the stored rows stay of unit norm, so that an update turns them as far late as early.
    """
    if not normalization.constraint:
        return None
    return keras_wcond.WeightConditioning(gain=1.0 if normalization.weights else "kernel_norm")


def with_weight_normalization(
    model: keras.Model,
    normalization: Normalization,
    layers: Any,
    gain: float | str = "initial_norm",
    trainable_gain: str | None = None,
    penalty: float = 1.0,
) -> keras.Model:
    """A plain model with its weights normalized.

    Args:
        model: A functional model of plain layers.
        normalization: What `parse` returns.
        layers: Which layers it applies to, as in `keras_wcond.condition_model`.
        gain: As in `keras_wcond.condition_model`; weight normalization brings its own.
        trainable_gain: Likewise.
        penalty: Factor of the orthogonal regularizer.

    Returns:
        A model, whose attribute `optimizer_conditioning` is a dict of the arguments of
        `keras_wcond.condition_optimizer`, or None.
    """
    arguments = {
        "gain": gain,
        "trainable_gain": trainable_gain,
        "layers": "*" if normalization.everywhere else layers,
    }
    at_start = normalization.at_start or normalization.stored
    optimizer_conditioning = {}
    if normalization.orthogonal_updates:
        optimizer_conditioning["update_conditioner"] = UPDATES
    match normalization.weights:
        case ():
            pass
        case ("orthogonal_initializer" | "orthogonal_regularizer" as name,):
            for kernel in _kernels(model, arguments):
                if name == "orthogonal_initializer":
                    _make_orthogonal(kernel)
                else:
                    kernel.regularizer = OrthogonalFilters(penalty, mode="columns")
        case ("weight_normalization",):
            model = keras_wcond.condition_model(model, **arguments | WEIGHT_NORMALIZATION)
        case names:
            methods = [_conditioner(name, normalization.differentiated) for name in names]
            if normalization.stored:
                optimizer_conditioning |= {"weight_conditioner": methods, "every": EVERY}
                methods = methods * STEPS_AT_START
            conditioner = methods if len(methods) > 1 else methods[0]
            model = keras_wcond.condition_model(model, conditioner, **arguments)
    model = keras_wcond.fold_model(model) if at_start else model
    if optimizer_conditioning:
        optimizer_conditioning["layers"] = arguments["layers"]
    model.optimizer_conditioning = optimizer_conditioning or None
    return model


def _conditioner(name: str, differentiated: bool) -> keras_wcond.conditioners.Conditioner:
    """The conditioner of a name."""
    found = keras_wcond.conditioners.get(CONDITIONERS.get(name, name))
    if not differentiated:
        return found
    return type(found)(**found.get_config() | {"differentiate_multiplier": True})


def _kernels(model: keras.Model, arguments: dict[str, Any]) -> list[keras.Variable]:
    """The kernels of a plain model that its conditioned form would condition."""
    conditioned = keras_wcond.condition_model(model, **arguments)
    paths = {
        weight.path
        for layer in keras_wcond.conditioned_layers(conditioned)
        for weight in layer.trainable_weights
        if weight.path.endswith("kernel")
    }
    return [weight for weight in model.trainable_weights if weight.path in paths]


def _make_orthogonal(kernel: keras.Variable) -> None:
    """Gives a kernel orthogonal filters, or inputs if there are fewer, and the norm it had."""
    orthogonal = keras.initializers.Orthogonal(seed=keras.random.SeedGenerator())(kernel.shape)
    ratio = np.linalg.norm(kernel.numpy()) / np.linalg.norm(orthogonal)
    kernel.assign(ratio * orthogonal)


@keras.saving.register_keras_serializable("keras_wcond_examples")
class OrthogonalFilters(keras.regularizers.OrthogonalRegularizer):
    """Keras' regularizer, also for kernels of more than two axes. The last one is that of units."""

    def __call__(self, kernel):
        return super().__call__(keras.ops.reshape(kernel, (-1, kernel.shape[-1])))
