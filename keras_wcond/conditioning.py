"""The one formula behind layers, constraint and initializer: gain · C(W)."""

from typing import Any

from keras_wcond import conditioners
from keras_wcond.gains import norm_ratio
from keras_wcond.kernels import KernelLayout
from keras_wcond.norms import widened


def condition(
    kernel: Any, conditioner: conditioners.Conditioner, layout: KernelLayout, gain: Any = 1.0
) -> Any:
    """`gain · C(W)` in float32 or wider, differentiable in W and in the gain.

    Args:
        kernel: Tensor or variable.
        conditioner: The method C.
        layout: Which axes of the kernel are output units.
        gain: Number or tensor that multiplies a kernel, or `"kernel_norm"` for
            `‖W‖_F / ‖C(W)‖_F`.
    """
    kernel = widened(kernel)
    conditioned = conditioner.in_full_precision(kernel, layout)
    if is_kernel_norm(gain):
        return conditioned * norm_ratio(kernel, conditioned)
    is_one = isinstance(gain, float) and gain == 1.0
    return conditioned if is_one else conditioned * gain


def with_unit_rows(conditioner: conditioners.Conditioner) -> conditioners.Conditioner:
    """The conditioner, its result scaled to the rows that the gain `"auto"` is meant for.

    `1/√E[φ(z)²]` gives outputs of unit mean square if z has unit variance, which takes rows of
    unit mean square norm.
    """
    if conditioner.has_unit_rows:
        return conditioner
    return conditioners.Sequential([conditioner, conditioners.FrobeniusNormalization()])


def is_kernel_norm(gain: Any) -> bool:
    return isinstance(gain, str) and gain == "kernel_norm"


def required_conditioner(identifier: Any, owner: str) -> conditioners.Conditioner:
    """The conditioner, where None would leave its owner without a purpose."""
    conditioner = conditioners.get(identifier)
    if conditioner is None:
        raise ValueError(
            f"Expected `{owner}` to be given a conditioner. Received: conditioner=None. "
            f"Leave `{owner}` out to have the plain weights."
        )
    return conditioner
