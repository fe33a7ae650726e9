"""The normalizations that the examples offer, by name.

A name joins with plus signs what is done to activations and what is done to weights:
"none", "batch", "row_equilibration", "batch+weight_standardization",
"layer+row_equilibration+newton_orthogonalization". At its end may stand "everywhere", which
reaches first and last layers as well; "constraint", which equilibrates the stored kernels after
each update, be they conditioned in the forward pass or not; and "at_start", which makes the plain
network that starts from the conditioned kernels.
"""

import dataclasses
from typing import Any

import keras

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
CONDITIONERS = {UNCENTERED: keras_wcond.conditioners.NewtonOrthogonalization(center=False)}
WEIGHTS = ("weight_normalization", *keras_wcond.conditioners.METHODS, UNCENTERED)
MODIFIERS = ("everywhere", "constraint", "at_start")


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What is done to activations, and to weights.

    Args:
        activations: `"none"`, `"batch"` or `"layer"`.
        weights: Names of methods, applied one after the other.
        everywhere: Whether the methods apply to every layer that has a kernel.
        constraint: Whether the stored kernels are kept row-equilibrated.
        at_start: Whether the methods are applied once, before training.
    """

    activations: str = "none"
    weights: tuple[str, ...] = ()
    everywhere: bool = False
    constraint: bool = False
    at_start: bool = False


def parse(name: str) -> Normalization:
    """The normalization of a name."""
    first, *others = name.split("+")
    weights = others if first in ACTIVATIONS else [first, *others]
    modifiers = [weight for weight in weights if weight in MODIFIERS]
    weights = [weight for weight in weights if weight not in MODIFIERS]
    is_unknown = any(weight not in WEIGHTS for weight in weights)
    is_alone = len(weights) > 1 and "weight_normalization" in weights
    needs_method = {"everywhere", "at_start"} & {*modifiers}
    if is_unknown or is_alone or (needs_method and not weights):
        raise ValueError(
            f"Expected a normalization: one of {', '.join(ACTIVATIONS)}, or of "
            f"{', '.join(WEIGHTS)}, or one of the former and some of the latter joined by '+'; "
            "weight_normalization stands alone among the latter. 'constraint' may follow, and "
            f"'everywhere' and 'at_start' after the latter. Received: normalization={name!r}"
        )
    return Normalization(
        activations=first if first in ACTIVATIONS else "none",
        weights=tuple(weights),
        everywhere="everywhere" in modifiers,
        constraint="constraint" in modifiers,
        at_start="at_start" in modifiers,
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
) -> keras.Model:
    """A plain model with its weights normalized.

    Args:
        model: A functional model of plain layers.
        normalization: What `parse` returns.
        layers: Which layers it applies to, as in `keras_wcond.condition_model`.
        gain: As in `keras_wcond.condition_model`; weight normalization brings its own.
        trainable_gain: Likewise.
    """
    if not normalization.weights:
        return model
    arguments = {
        "gain": gain,
        "trainable_gain": trainable_gain,
        "layers": "*" if normalization.everywhere else layers,
    }
    match normalization.weights:
        case ("weight_normalization",):
            arguments |= WEIGHT_NORMALIZATION
        case names:
            weights = [CONDITIONERS.get(name, name) for name in names]
            arguments["kernel_conditioner"] = weights if len(weights) > 1 else weights[0]
    conditioned = keras_wcond.condition_model(model, **arguments)
    return keras_wcond.fold_model(conditioned) if normalization.at_start else conditioned
