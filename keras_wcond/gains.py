"""The gain, the factor of a conditioned kernel."""

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from keras import ops

from keras_wcond.linalg.arrays import Tensor, array, namespace
from keras_wcond.linalg.norms import divided_by_maximum, frobenius_norm

GainWord: TypeAlias = Literal["auto", "initial_norm", "kernel_norm"]
# The argument `gain` of layers.
Gain: TypeAlias = float | GainWord
# The argument `gain` of constraints and initializers, which do not know their layer.
FixedGain: TypeAlias = float | Literal["kernel_norm"]
TrainableGain: TypeAlias = Literal["scalar", "per_unit"] | None
Activation: TypeAlias = Callable[[Tensor], Tensor]
GAIN_WORDS: tuple[GainWord, ...] = get_args(GainWord)


def standardize_gain(gain: Any, words: Sequence[str] = GAIN_WORDS) -> Any:
    """The gain as a float or one of the words, or an error for anything else."""
    if isinstance(gain, str) and gain in words:
        return gain
    if isinstance(gain, numbers.Real) and not isinstance(gain, bool):
        if math.isfinite(gain) and float(gain) > 0.0:
            return float(gain)
    elif not isinstance(gain, str):
        raise TypeError(f"{_expected_gain(words)} Received: gain={gain!r} ({type(gain).__name__})")
    raise ValueError(f"{_expected_gain(words)} Received: gain={gain!r}")


def _expected_gain(words: Sequence[str]) -> str:
    listed = ", ".join(map(repr, words))
    choices = f"one of {listed}" if len(words) > 1 else listed
    return f"Expected `gain` to be a positive number or {choices}."


def norm_ratio(kernel: Tensor, conditioned: Tensor) -> Tensor:
    """`‖W‖_F / ‖C(W)‖_F`, the factor that gives C(W) the norm of W, or zero for zero C(W)."""
    ops = namespace(kernel)
    norm = frobenius_norm(conditioned)
    is_zero = norm == 0.0
    ratio = frobenius_norm(kernel) / ops.where(is_zero, 1.0, norm)
    return ops.where(is_zero, 0.0, ratio)


def row_norm_ratios(kernel: Tensor, conditioned: Tensor, column_axes: tuple[int, ...]) -> Tensor:
    """`‖Wᵢ‖ / ‖C(W)ᵢ‖`, the factors that give the rows of C(W) the norms of the rows of W.

    Args:
        kernel: Tensor or NumPy array W, in float32 or wider.
        conditioned: Tensor or array C(W) of the same shape and dtype.
        column_axes: Tuple of integers. The axes along which a row runs.

    Returns:
        Tensor or array of the shape of the unit axes. 1 for zero rows of C(W).
    """
    ops = namespace(kernel)
    raw, raw_divisor, _ = divided_by_maximum(kernel, column_axes)
    unit, divisor, is_zero = divided_by_maximum(conditioned, column_axes)
    raw_norm, norm = (
        ops.sqrt(ops.sum(ops.square(rows), axis=column_axes, keepdims=True)) for rows in (raw, unit)
    )
    ratio = raw_norm / ops.where(is_zero, 1.0, norm) * (raw_divisor / divisor)
    return ops.squeeze(ops.where(is_zero, 1.0, ratio), axis=column_axes)


def activation_gain(activation: Activation) -> float:
    """The factor that gives an activation unit mean square for normally distributed inputs.

    `1/√E[φ(z)²]`, z ~ N(0, 1)

    The expectation is a trapezoidal sum over 2¹⁴ steps of [-9, 9], which resolves
    activations that vary over distances of about 0.005 or more. The gain is accurate to 1e-5 for
    smooth activations and for ReLU, whose gain is √2.

    Args:
        activation: Function that applies φ to each element of a float32 tensor of any shape.

    Returns:
        Float. The positive gain.

    Raises:
        ValueError: If the activation does not act on each element separately, or if `E[φ(z)²]`
            is zero or not finite.

    Examples:
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


def _evaluate(activation: Activation, z: np.ndarray) -> np.ndarray:
    values = activation(ops.convert_to_tensor(z.astype("float32")))
    return array(values).astype("float64")


def _name(activation: Activation) -> str:
    return getattr(activation, "__name__", None) or repr(activation)


def standardize_trainable_gain(trainable_gain: TrainableGain) -> TrainableGain:
    """The argument itself, or an error if it is not valid."""
    if trainable_gain not in (None, "scalar", "per_unit"):
        raise ValueError(
            "Expected `trainable_gain` to be None, 'scalar' or 'per_unit'. Received: "
            f"trainable_gain={trainable_gain!r}"
        )
    return trainable_gain
