"""The gain: what a conditioned kernel is multiplied by."""

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
from keras import ops

from keras_wcond.linalg.arrays import namespace
from keras_wcond.linalg.norms import divided_by_maximum, frobenius_norm

GainWord = Literal["auto", "initial_norm", "kernel_norm"]
Gain = float | GainWord
FixedGain = float | Literal["kernel_norm"]
TrainableGain = Literal["scalar", "per_unit"] | None
GAIN_WORDS: tuple[GainWord, ...] = get_args(GainWord)


def standardize_gain(gain: Any, words: Sequence[GainWord] = GAIN_WORDS) -> Gain:
    """The gain as a float or one of the words; an error for anything else."""
    if isinstance(gain, str) and gain in words:
        return cast(GainWord, gain)
    if isinstance(gain, numbers.Real) and not isinstance(gain, bool):
        if math.isfinite(gain) and float(gain) > 0.0:
            return float(gain)
    elif not isinstance(gain, str):
        raise TypeError(f"{_expected_gain(words)} Received: gain={gain!r} ({type(gain).__name__})")
    raise ValueError(f"{_expected_gain(words)} Received: gain={gain!r}")


def _expected_gain(words):
    listed = ", ".join(map(repr, words))
    choices = f"one of {listed}" if len(words) > 1 else listed
    return f"Expected `gain` to be a positive number or {choices}."


def norm_ratio(kernel: Any, conditioned: Any) -> Any:
    """`‖W‖_F / ‖C(W)‖_F`, the factor that gives C(W) the norm of W; zero for zero C(W)."""
    ops = namespace(kernel)
    norm = frobenius_norm(conditioned)
    is_zero = norm == 0.0
    ratio = frobenius_norm(kernel) / ops.where(is_zero, 1.0, norm)
    return ops.where(is_zero, 0.0, ratio)


def row_norm_ratios(kernel: Any, conditioned: Any, column_axes: tuple[int, ...]) -> Any:
    """`‖Wᵢ‖ / ‖C(W)ᵢ‖`, the factor that gives each row of C(W) its norm in W; 1 for zero rows.

    Args:
        kernel: Tensor W, in float32 or wider.
        conditioned: Tensor C(W) of the same shape and dtype.
        column_axes: The axes along which a row runs.
    """
    ops = namespace(kernel)
    raw, raw_divisor, _ = divided_by_maximum(kernel, column_axes)
    unit, divisor, is_zero = divided_by_maximum(conditioned, column_axes)
    raw_norm, norm = (
        ops.sqrt(ops.sum(ops.square(rows), axis=column_axes, keepdims=True)) for rows in (raw, unit)
    )
    ratio = raw_norm / ops.where(is_zero, 1.0, norm) * (raw_divisor / divisor)
    return ops.squeeze(ops.where(is_zero, 1.0, ratio), axis=column_axes)


def activation_gain(activation: Callable[[Any], Any]) -> float:
    """`1/√E[φ(z)²]`, z ~ N(0, 1): the factor that gives φ(z) unit mean square.

    The expectation is a trapezoidal sum over 2¹⁴ steps of [-9, 9], which resolves
    activations that vary over distances of about 0.005 or more. Exact to 1e-5 for smooth
    ones; ReLU gives √2 to that accuracy too.

    Args:
        activation: Function of a tensor that acts on each element by itself.

    Example:

    >>> round(activation_gain(keras.activations.relu), 4)
    1.4142
    """
    z = np.linspace(-9.0, 9.0, 2**14 + 1)
    values = _evaluate(activation, z)
    if values.shape != z.shape or not np.allclose(
        values[::1024], _evaluate(activation, z[::1024]), rtol=1e-5, atol=1e-6
    ):
        raise ValueError(
            "Expected an activation that acts on each element by itself, as `gain='auto'` "
            f"needs. Received: activation={_name(activation)}, whose value at one element "
            "depends on the others. Pass a number as the gain."
        )
    density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    second_moment = float(np.sum(values**2 * density) * (z[1] - z[0]))
    if not math.isfinite(second_moment) or second_moment <= 0.0:
        raise ValueError(
            "Expected an activation with a finite, positive second moment under N(0, 1), as "
            f"`gain='auto'` needs. Received: activation={_name(activation)}, "
            f"E[activation(z)²]={second_moment}. Pass a number as the gain."
        )
    return 1.0 / math.sqrt(second_moment)


def _evaluate(activation, z):
    values = activation(ops.convert_to_tensor(z.astype("float32")))
    return ops.convert_to_numpy(values).astype("float64")


def _name(activation):
    return getattr(activation, "__name__", None) or repr(activation)


def standardize_trainable_gain(trainable_gain: Any) -> TrainableGain:
    if trainable_gain not in (None, "scalar", "per_unit"):
        raise ValueError(
            "Expected `trainable_gain` to be None, 'scalar' or 'per_unit'. Received: "
            f"trainable_gain={trainable_gain!r}"
        )
    return cast(TrainableGain, trainable_gain)
