"""The reparametrization of a kernel W as gain · C(W)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_wcond import backends
from keras_wcond.arguments import by_either_name
from keras_wcond.conditioners import (
    Conditioner,
    FrobeniusNormalization,
    Sequential,
    serialize,
)
from keras_wcond.conditioners.conditioner import ConditionerLike
from keras_wcond.conditioners.registry import required
from keras_wcond.conditioners.singular_value_method import SingularValueMethod
from keras_wcond.gains import (
    Activation,
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
from keras_wcond.linalg.arrays import Axes, Tensor, cast, namespace, tensor, widened

# Entries of the largest kernels that `apply_to_all()` conditions in one call with others.
LARGEST_STACKED = 2**18


@dataclasses.dataclass(frozen=True)
class Reparametrization:
    """The function `W ↦ gain · C(W)`, whose gain is fixed or a weight of the caller.

    Args:
        conditioner: The method C.
        gain: Positive number, `"initial_norm"` or `"kernel_norm"`. Defaults to `1.0`.
        trainable_gain: None, `"scalar"` or `"per_unit"`. Defaults to `None`.
    """

    conditioner: Conditioner
    gain: Gain = 1.0
    trainable_gain: TrainableGain = None

    @classmethod
    def before(
        cls,
        activation: Activation | None,
        conditioner: Conditioner,
        gain: Gain,
        trainable_gain: TrainableGain,
    ) -> "Reparametrization":
        """The reparametrization of a kernel before an activation.

        For `gain="auto"` the gain is that of the activation, `1/√E[φ(z)²]`. Outputs then have
        unit mean square if z has unit variance, which requires rows of unit mean square norm.
        The results of methods with other row norms are scaled to this norm.

        Args:
            activation: Function φ of a tensor, or None if no activation follows.
            conditioner: The method C.
            gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`.
            trainable_gain: None, `"scalar"` or `"per_unit"`.

        Returns:
            A `Reparametrization`.
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
        """Whether the gain is a weight, which `apply()` then requires."""
        return self.gain == "initial_norm" or self.trainable_gain is not None

    def gain_shape(self, layout: KernelLayout, kernel_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the gain's weight."""
        return layout.units(kernel_shape) if self.trainable_gain == "per_unit" else ()

    def initial_gain(self, kernel: Tensor, layout: KernelLayout) -> Tensor:
        """The initial value of the gain's weight, for the current value of the kernel.

        `"initial_norm"` keeps the norm of the kernel. With a gain per unit it keeps the norm of
        each row, as the initialization of weight normalization does.

        Args:
            kernel: Tensor or NumPy array in float32 or wider.
            layout: `KernelLayout`. The reading of the kernel as matrices.

        Returns:
            Number, or tensor or array of shape `()` or of the shape of the unit axes.
        """
        if self.gain == "kernel_norm":
            return 1.0
        if self.gain != "initial_norm":
            return self.gain
        conditioned = dataclasses.replace(self, gain=1.0, trainable_gain=None).apply(kernel, layout)
        if self.trainable_gain == "per_unit":
            return row_norm_ratios(kernel, conditioned, layout.column_axes(kernel.shape))
        return norm_ratio(kernel, conditioned)

    def apply(
        self, kernel: Tensor, layout: KernelLayout, gain_weight: Tensor | None = None
    ) -> Tensor:
        """`gain · C(W)`, differentiable in W and in the gain.

        Args:
            kernel: Tensor or NumPy array in float32 or wider.
            layout: `KernelLayout`. The reading of the kernel as matrices.
            gain_weight: Tensor, variable or array. The gain's weight if `has_gain_weight`.
                Defaults to `None`.

        Returns:
            Tensor of the kernel's shape and dtype. For a NumPy array, a NumPy array.

        Raises:
            ValueError: If the gain is a weight and is not given.
        """
        with full_precision(), backends.without_autocast():
            conditioned = self.conditioner.condition_kernel(kernel, layout)
            if conditioned.shape != kernel.shape:
                self.conditioner.require_shape(conditioned, kernel)
            if self.gain == "kernel_norm" and not self.conditioner.keeps_norm:
                conditioned = conditioned * norm_ratio(kernel, conditioned)
            if gain_weight is None:
                if self.has_gain_weight:
                    raise ValueError(
                        "Expected the weight of the gain, which is not a fixed number. Received: "
                        f"gain_weight=None for {self}."
                    )
                is_factor = self.gain not in (1.0, "kernel_norm")
                return conditioned * self.gain if is_factor else conditioned
            gain = widened(gain_weight)
            if self.trainable_gain == "per_unit":
                units = layout.broadcastable_units(kernel.shape)
                gain = namespace(gain).reshape(gain, units)
            return conditioned * cast(gain, conditioned.dtype)

    def apply_to_all(
        self, kernels: Sequence[Tensor], layouts: Sequence[KernelLayout]
    ) -> list[Tensor]:
        """`gain · C(W)` of each kernel, of those in a group of `groups()` in one call.

        Args:
            kernels: Tensors in float32 or wider.
            layouts: The reading of each kernel as matrices.

        Returns:
            List of tensors. The gain must not be a weight.
        """
        found: dict[int, Tensor] = {}
        for members in self.groups(kernels, layouts):
            own = [kernels[index] for index in members]
            results = self.apply_to_group(own, layouts[members[0]])
            found.update(zip(members, results, strict=True))
        return [found[index] for index in range(len(kernels))]

    def groups(self, kernels: Sequence[Tensor], layouts: Sequence[KernelLayout]) -> list[list[int]]:
        """The kernels in groups: small ones of one shape and layout, or a single one.

        Small kernels take less time to compute than to be dispatched.

        Args:
            kernels: Tensors in float32 or wider.
            layouts: The reading of each kernel as matrices.

        Returns:
            List with the positions of the kernels of each group.
        """
        groups: dict[Any, list[int]] = {}
        is_by_matrix = type(self.conditioner).condition_kernel in (
            Conditioner.condition_kernel,
            SingularValueMethod.condition_kernel,
        )
        for index, (kernel, layout) in enumerate(zip(kernels, layouts, strict=True)):
            is_stacked = is_by_matrix and math.prod(kernel.shape) <= LARGEST_STACKED
            shape = (tuple(kernel.shape), str(kernel.dtype), layout)
            groups.setdefault(shape if is_stacked else index, []).append(index)
        return [*groups.values()]

    def apply_to_group(self, kernels: Sequence[Tensor], layout: KernelLayout) -> list[Tensor]:
        """`gain · C(W)` of each kernel of a group of `groups()`, in one call.

        Args:
            kernels: Tensors of one shape, in float32 or wider.
            layout: `KernelLayout`. The reading of each kernel as matrices.

        Returns:
            List of tensors. The gain must not be a weight.
        """
        if len(kernels) == 1:
            return [self.apply(kernels[0], layout)]
        with full_precision(), backends.without_autocast():
            stack = ops.stack(kernels)
            conditioned = self.conditioner.condition_kernel(stack, layout.of_stack())
            if self.gain == "kernel_norm" and not self.conditioner.keeps_norm:
                axes = tuple(range(1, stack.ndim))
                ratios = row_norm_ratios(stack, conditioned, axes)
                conditioned = conditioned * ops.reshape(ratios, (-1, *(1 for _ in axes)))
            elif self.gain not in (1.0, "kernel_norm"):
                conditioned = conditioned * self.gain
            return [conditioned[index] for index in range(len(kernels))]

    def product(
        self,
        inputs: Tensor,
        kernel: Tensor,
        gain_weight: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor | None:
        """`inputs · gain · C(W) + bias`, computed without forming `C(W)`.

        Args:
            inputs: Tensor of shape `(rows, inputs)`, in float32 or float64.
            kernel: Tensor or variable of shape `(inputs, units)` and of the same dtype.
            gain_weight: Tensor or variable. The gain's weight if `has_gain_weight`. Defaults to
                `None`.
            bias: Tensor or variable of shape `(units,)` and of the same dtype, or None. Defaults
                to `None`.

        Returns:
            Tensor of shape `(rows, units)`, or None if the method or the backend has no such
            product.
        """
        if self.gain == "kernel_norm":
            return None
        if gain_weight is not None:
            gain = tensor(gain_weight)
        else:
            gain = None if self.gain == 1.0 else ops.convert_to_tensor(self.gain, inputs.dtype)
        bias = None if bias is None else tensor(bias)
        return self.conditioner.product(tensor(inputs), tensor(kernel), gain, bias)


_DEFAULT = "row_equilibration"


class TensorConditioning:
    """Base class of constraints and initializers, which condition a tensor without its layer.

    Args:
        kernel_conditioner: Name, config, instance or subclass of `Conditioner`, or a list of
            these. Defaults to `"row_equilibration"`.
        gain: Positive number or `"kernel_norm"`. Defaults to `1.0`.
        unit_axes: Integer or tuple of integers. The axes that index output units. Defaults to
            `-1`.
        matrix_axes: Integer or tuple of integers, a subset of `unit_axes`. The axes that index
            whole matrices. Defaults to `()`.
        blocks: Integer. The number of matrices side by side along the last unit axis. Defaults
            to `1`.
        conditioner: Earlier name of `kernel_conditioner`. Defaults to `None`.
    """

    def __init__(
        self,
        kernel_conditioner: ConditionerLike = "row_equilibration",
        gain: FixedGain = 1.0,
        unit_axes: Axes = -1,
        matrix_axes: Axes = (),
        blocks: int = 1,
        conditioner: ConditionerLike = None,
    ) -> None:
        given = by_either_name(
            "kernel_conditioner", kernel_conditioner, _DEFAULT, "conditioner", conditioner
        )
        self.kernel_conditioner = required(given, type(self).__name__)
        self.gain = standardize_gain(gain, ("kernel_norm",))
        self.layout = KernelLayout(unit_axes, matrix_axes, blocks)

    @property
    def conditioner(self) -> Conditioner:
        """Earlier name of `kernel_conditioner`."""
        return self.kernel_conditioner

    def conditioned(self, kernel: Tensor) -> Tensor:
        """The conditioned tensor, in the dtype of the given one."""
        reparametrization = Reparametrization(self.kernel_conditioner, self.gain)
        with full_precision():
            wide = widened(kernel)
        return ops.cast(reparametrization.apply(wide, self.layout), kernel.dtype)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.kernel_conditioner!r}, gain={self.gain!r}, "
            f"layout={self.layout!r})"
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, used for serialization."""
        return {
            "kernel_conditioner": serialize(self.kernel_conditioner),
            "gain": self.gain,
            "unit_axes": list(self.layout.unit_axes),
            "matrix_axes": list(self.layout.matrix_axes),
            "blocks": self.layout.blocks,
        }
