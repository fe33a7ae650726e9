"""A kernel reparametrized as gain · C(W): the method, the gain, and what of it is trained."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from keras_wcond import backends
from keras_wcond.conditioners import (
    Conditioner,
    FrobeniusNormalization,
    Sequential,
    serialize,
)
from keras_wcond.conditioners.registry import required
from keras_wcond.gains import (
    FixedGain,
    Gain,
    TrainableGain,
    activation_gain,
    norm_ratio,
    row_norm_ratios,
    standardize_gain,
)
from keras_wcond.internals import full_precision
from keras_wcond.kernels.layout import KernelLayout
from keras_wcond.linalg.arrays import cast, namespace, tensor, widened


@dataclasses.dataclass(frozen=True)
class Reparametrization:
    """`W ↦ gain · C(W)`, with the gain fixed, or a weight that the caller keeps.

    Args:
        conditioner: The method C.
        gain: Positive number, `"initial_norm"` or `"kernel_norm"`.
        trainable_gain: None, `"scalar"` or `"per_unit"`.
    """

    conditioner: Conditioner
    gain: Gain = 1.0
    trainable_gain: TrainableGain = None

    @classmethod
    def before(
        cls,
        activation: Callable[[Any], Any] | None,
        conditioner: Conditioner,
        gain: Gain,
        trainable_gain: TrainableGain,
    ) -> "Reparametrization":
        """The one of a kernel before an activation, which `"auto"` takes its number from.

        `1/√E[φ(z)²]` gives outputs of unit mean square if z has unit variance, which takes rows
        of unit mean square norm. Results of methods with other rows are scaled to that.

        Args:
            activation: Function of a tensor, or None where no activation follows.
            conditioner: The method C.
            gain: Positive number or one of the words of `gain`.
            trainable_gain: None, `"scalar"` or `"per_unit"`.
        """
        if gain != "auto":
            return cls(conditioner, gain, trainable_gain)
        if not conditioner.has_unit_rows:
            conditioner = Sequential([conditioner, FrobeniusNormalization()])
        return cls(
            conditioner,
            1.0 if activation is None else activation_gain(activation),
            trainable_gain,
        )

    @property
    def has_gain_weight(self) -> bool:
        """Whether the gain is a weight, which `apply` is to be given."""
        return self.gain == "initial_norm" or self.trainable_gain is not None

    def gain_shape(self, layout: KernelLayout, kernel_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the gain's weight."""
        return layout.units(kernel_shape) if self.trainable_gain == "per_unit" else ()

    def initial_gain(self, kernel: Any, layout: KernelLayout) -> Any:
        """The value that the gain's weight starts at, for the value the kernel has now.

        `"initial_norm"` per unit keeps the norm of each row, as weight normalization starts.

        Args:
            kernel: Tensor or NumPy array in float32 or wider.
            layout: Which axes of the kernel are output units.
        """
        if self.gain == "kernel_norm":
            return 1.0
        if self.gain != "initial_norm":
            return self.gain
        conditioned = dataclasses.replace(self, gain=1.0, trainable_gain=None).apply(kernel, layout)
        if self.trainable_gain == "per_unit":
            return row_norm_ratios(kernel, conditioned, layout.column_axes(kernel.shape))
        return norm_ratio(kernel, conditioned)

    def apply(self, kernel: Any, layout: KernelLayout, gain_weight: Any = None) -> Any:
        """`gain · C(W)`, differentiable in W and in the gain.

        Args:
            kernel: Tensor or NumPy array in float32 or wider.
            layout: Which axes of the kernel are output units.
            gain_weight: The gain's weight, where `has_gain_weight`.

        Returns:
            Tensor of the kernel's shape and dtype. For a NumPy array, a NumPy array.
        """
        with full_precision(), backends.without_autocast():
            conditioned = self.conditioner.condition_kernel(kernel, layout)
            if conditioned.shape != kernel.shape:
                self.conditioner.require_shape(conditioned, kernel)
            if self.gain == "kernel_norm":
                conditioned = conditioned * norm_ratio(kernel, conditioned)
            elif self.gain != 1.0 and gain_weight is None:
                return conditioned * self.gain
            if gain_weight is None:
                return conditioned
            gain = widened(gain_weight)
            if self.trainable_gain == "per_unit":
                units = layout.broadcastable_units(kernel.shape)
                gain = namespace(gain).reshape(gain, units)
            return conditioned * cast(gain, conditioned.dtype)

    def product(self, inputs: Any, kernel: Any, gain_weight: Any = None, bias: Any = None) -> Any:
        """`inputs · gain · C(W) + bias` without forming C(W), or None where that is not to be had.

        Args:
            inputs: Tensor of shape `(rows, inputs)`, float32 or float64.
            kernel: Tensor or variable of shape `(inputs, units)`, of the same dtype.
            gain_weight: The gain's weight, where `has_gain_weight`.
            bias: None, or a tensor or variable of shape `(units,)`, of the same dtype.
        """
        if self.gain == "kernel_norm":
            return None
        if gain_weight is not None:
            gain = tensor(gain_weight)
        else:
            gain = None if self.gain == 1.0 else ops.convert_to_tensor(self.gain, inputs.dtype)
        bias = None if bias is None else tensor(bias)
        return self.conditioner.product(tensor(inputs), tensor(kernel), gain, bias)


class TensorConditioning:
    """`gain · C(W)` of a tensor without its layer, as constraints and initializers are given it.

    Args:
        kernel_conditioner: Name, config or instance of a conditioner.
        gain: Positive number or `"kernel_norm"`.
        unit_axes: Integer or tuple of integers, the axes that index output units.
        matrix_axes: Integer or tuple of integers among them, the axes that index matrices.
        blocks: Integer, the matrices that lie side by side along the last unit axis.
        conditioner: Another name of `kernel_conditioner`.
    """

    def __init__(
        self,
        kernel_conditioner: Any = "row_equilibration",
        gain: FixedGain = 1.0,
        unit_axes: int | tuple[int, ...] = -1,
        matrix_axes: int | tuple[int, ...] = (),
        blocks: int = 1,
        conditioner: Any = None,
    ):
        given = kernel_conditioner if conditioner is None else conditioner
        self.kernel_conditioner = required(given, type(self).__name__)
        self.gain = standardize_gain(gain, ("kernel_norm",))
        self.layout = KernelLayout(unit_axes, matrix_axes, blocks)

    def conditioned(self, kernel: Any) -> Any:
        """The conditioned tensor, in its own dtype."""
        reparametrization = Reparametrization(self.kernel_conditioner, self.gain)
        with full_precision():
            wide = widened(kernel)
        return ops.cast(reparametrization.apply(wide, self.layout), kernel.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            "kernel_conditioner": serialize(self.kernel_conditioner),
            "gain": self.gain,
            "unit_axes": list(self.layout.unit_axes),
            "matrix_axes": list(self.layout.matrix_axes),
            "blocks": self.layout.blocks,
        }
