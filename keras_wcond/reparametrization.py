"""A kernel reparametrized as gain · C(W): the method, the gain, and what of it is trained."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_wcond import conditioners
from keras_wcond.arrays import tensor
from keras_wcond.conditioning import condition, is_kernel_norm
from keras_wcond.gains import Gain, norm_ratio, row_norm_ratios
from keras_wcond.internals import full_precision
from keras_wcond.kernels import KernelLayout
from keras_wcond.norms import widened


@dataclasses.dataclass(frozen=True)
class Reparametrization:
    """`W ↦ gain · C(W)`, with the gain fixed, or a weight that the caller keeps.

    Args:
        conditioner: The method C.
        gain: Positive number, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`.
    """

    conditioner: conditioners.Conditioner
    gain: Gain = 1.0
    trainable_gain: str | None = None

    @property
    def has_gain_weight(self) -> bool:
        """Whether the gain is a weight, which `apply` is to be given."""
        return self.gain == "initial_norm" or self.trainable_gain is not None

    def gain_shape(self, layout: KernelLayout, kernel_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the gain's weight."""
        return layout.units(kernel_shape) if self.trainable_gain == "per_unit" else ()

    def initial_gain(self, kernel: Any, layout: KernelLayout) -> Any:
        """What the gain's weight starts at, for the value the kernel has now.

        `"initial_norm"` per unit keeps the norm of each row, as weight normalization starts.
        """
        if is_kernel_norm(self.gain):
            return 1.0
        if self.gain != "initial_norm":
            return self.gain
        with full_precision():
            kernel = widened(kernel)
            conditioned = self.conditioner(kernel, layout)
            if self.trainable_gain == "per_unit":
                return row_norm_ratios(kernel, conditioned, layout.column_axes(kernel.shape))
            return norm_ratio(kernel, conditioned)

    def apply(self, kernel: Any, layout: KernelLayout, gain_weight: Any = None) -> Any:
        """`gain · C(W)` in float32 or wider.

        Args:
            kernel: Tensor or variable.
            layout: Which axes of the kernel are output units.
            gain_weight: The gain's weight, where `has_gain_weight`.
        """
        with full_precision():
            if gain_weight is None:
                return condition(kernel, self.conditioner, layout, self.gain)
            base_gain = "kernel_norm" if is_kernel_norm(self.gain) else 1.0
            conditioned = condition(kernel, self.conditioner, layout, base_gain)
            gain = widened(gain_weight)
            if self.trainable_gain == "per_unit":
                gain = ops.reshape(gain, layout.broadcastable_units(kernel.shape))
            return conditioned * ops.cast(gain, conditioned.dtype)

    def product(self, inputs: Any, kernel: Any, gain_weight: Any = None, bias: Any = None) -> Any:
        """`inputs · gain · C(W) + bias` without forming C(W), or None where that is not to be had.

        Args:
            inputs: Tensor of shape `(rows, inputs)`, float32 or float64.
            kernel: Tensor or variable of shape `(inputs, units)`, of the same dtype.
            gain_weight: The gain's weight, where `has_gain_weight`.
            bias: None, or a tensor or variable of shape `(units,)`, of the same dtype.
        """
        if is_kernel_norm(self.gain):
            return None
        if gain_weight is not None:
            gain = tensor(gain_weight)
        else:
            gain = None if self.gain == 1.0 else ops.convert_to_tensor(self.gain, inputs.dtype)
        bias = None if bias is None else tensor(bias)
        return self.conditioner.product(tensor(inputs), tensor(kernel), gain, bias)
