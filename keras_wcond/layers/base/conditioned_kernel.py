"""A kernel that a layer reads as gain · C(W)."""

import contextlib
import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_wcond.backends import is_symbolic
from keras_wcond.conditioners import Conditioner, get
from keras_wcond.gains import (
    Gain,
    TrainableGain,
    standardize_gain,
    standardize_trainable_gain,
)
from keras_wcond.internals import full_precision
from keras_wcond.kernels.search import Kernel
from keras_wcond.layers.base.substitution import Substitution
from keras_wcond.linalg.arrays import Tensor, array, cast, is_wide
from keras_wcond.reparametrization import Reparametrization

AddWeight = Callable[..., keras.Variable]


class ConditionedKernel:
    """A kernel W with `gain · C(W)`, the kernel that its layer multiplies by.

    With low-rank adapters (LoRA), W is the merged kernel, `W + αAB`.

    Args:
        kernel: The kernel's variable, layout and path within the layer that conditions it.
        reparametrization: The method and the gain, or None for the plain kernel.

    Attributes:
        gain_weight: The gain where it is a weight, or None.
    """

    def __init__(self, kernel: Kernel, reparametrization: Reparametrization | None):
        self.kernel = kernel
        self.variable = kernel.variable
        self.layout = kernel.layout
        self.path = kernel.path
        self.owner = kernel.owner
        self.reparametrization = reparametrization
        self.gain_weight: keras.Variable | None = None
        with full_precision():
            self._is_wide = is_wide(self.variable.value.dtype)

    @property
    def adapters(self) -> tuple[keras.Variable, ...]:
        """The two factors of the kernel's low-rank update. Empty without LoRA."""
        names = [f"lora_{self.variable.name}_{factor}" for factor in "ab"]
        if not getattr(self.owner, "lora_enabled", False) or not hasattr(self.owner, names[0]):
            return ()
        return tuple(getattr(self.owner, name) for name in names)

    def at(self, path: str) -> "ConditionedKernel":
        """The same kernel with its path within another layer."""
        kernel = copy.copy(self)
        kernel.path = path
        return kernel

    def add_gain(self, add_weight: AddWeight, name: str) -> None:
        """Adds the weight of the gain to a layer, if the gain is a weight and not there yet.

        Args:
            add_weight: The layer's method `add_weight`.
            name: The weight's name.
        """
        reparametrization = self.reparametrization
        if reparametrization is None or not reparametrization.has_gain_weight:
            return
        if self.gain_weight is None:
            self.gain_weight = add_weight(
                name=name,
                shape=reparametrization.gain_shape(self.layout, self.variable.shape),
                initializer=self._initial_gain,
                trainable=reparametrization.trainable_gain is not None,
            )

    def reset_gain(self) -> None:
        """Reinitializes a gain that is a weight from the kernel's present value."""
        if self.gain_weight is not None:
            gain = self._initial_gain(self.gain_weight.shape, self.gain_weight.dtype)
            self.gain_weight.assign(gain)

    def raw(self) -> Tensor:
        """W in float32 or wider."""
        with full_precision():
            value = self.variable.value
            value = value if self._is_wide else ops.cast(value, "float32")
            if not self.adapters:
                return value
            # The layer's own merged tensor is rounded to the compute dtype.
            a, b = (cast(adapter.value, value.dtype) for adapter in self.adapters)
            # Not by `ops.matmul`, which computes float64 in float32 on PyTorch.
            return value + self.owner.lora_alpha / self.owner.lora_rank * (a @ b)

    def value(self) -> Tensor:
        """`gain · C(W)` in float32 or wider, or W if the kernel is plain."""
        if self.reparametrization is None:
            return self.raw()
        return self.reparametrization.apply(self.raw(), self.layout, self.gain_weight)

    def effective(self) -> Tensor:
        """`value()` in the compute dtype of the layer that owns the kernel."""
        return ops.cast(self.value(), self.owner.compute_dtype)

    def product(self, inputs: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """`inputs · gain · C(W) + bias` without forming C(W), or None. See `Reparametrization`."""
        if self.reparametrization is None:
            return None
        return self.reparametrization.product(inputs, self.raw(), self.gain_weight, bias)

    def replacements(self, conditioned: Tensor) -> list[tuple[keras.Variable, Tensor]]:
        """The values with which the layer multiplies by the conditioned kernel.

        Args:
            conditioned: `value()` or `folded()`.

        Returns:
            List of pairs of a variable and its value: the kernel and, with LoRA, the second
            factor of the update, which is zero.
        """
        pairs = [(self.variable, conditioned)]
        for adapter in self.adapters[1:]:
            # The conditioned kernel contains the low-rank update already.
            pairs.append((adapter, ops.zeros(adapter.shape, dtype=adapter.dtype)))
        return pairs

    def folded(self) -> np.ndarray:
        """`value()` as an array, computed on the host, which compiles nothing per shape."""
        raw = self._on_host()
        if self.reparametrization is None:
            return array(raw)
        gain = self.gain_weight
        if gain is not None and isinstance(raw, np.ndarray):
            gain = array(gain)
        return array(self.reparametrization.apply(raw, self.layout, gain))

    def _initial_gain(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        gain: Tensor = 1.0
        if self.reparametrization is not None:
            gain = self.reparametrization.initial_gain(self._on_host(), self.layout)
        # Not by `ops.broadcast_to`, whose result on PyTorch has one place in memory for all units.
        return ops.convert_to_tensor(gain, dtype=dtype) * ops.ones(tuple(shape), dtype=dtype)

    def _on_host(self) -> Tensor:
        """W as an array if it is known and the method computes with arrays, or as a tensor."""
        # It is not known where Keras builds a layer symbolically, as `fit()` does.
        raw, reparametrization = self.raw(), self.reparametrization
        is_array = reparametrization is None or reparametrization.conditioner.works_on_arrays
        return array(raw) if is_array and not is_symbolic(raw) else raw


class HoldsKernels:
    """Mixin with the properties that follow from the kernels a layer conditions."""

    name: str
    built: bool
    quantization_mode: str | None
    kernel_conditioner: Conditioner | None = None
    gain: Gain = 1.0
    trainable_gain: TrainableGain = None
    add_loss: Callable[[Any], None]
    _kernels: tuple[ConditionedKernel, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _ARGUMENTS:
            value = _ARGUMENTS[name](value)
            if self.built and value != getattr(self, name):
                self._require_changeable(name, value)
        super().__setattr__(name, value)
        if name in _ARGUMENTS:
            self._renew_reparametrizations()

    @property
    def kernels(self) -> tuple[ConditionedKernel, ...]:
        """The layer's kernels, each with its path within the layer. Empty before `build()`."""
        return self._kernels

    def conditioned_scope(self) -> contextlib.AbstractContextManager[Substitution | None]:
        """A scope in which the layer reads its conditioned kernels in place of the raw ones."""
        if self.kernel_conditioner is None:
            return contextlib.nullcontext()
        pairs = [kernel.replacements(kernel.value()) for kernel in self._kernels]
        return Substitution([*itertools.chain(*pairs)], self.add_loss)

    @property
    def raw_kernels(self) -> dict[str, keras.Variable]:
        """Each kernel's variable, by its path within the layer."""
        self._require_kernels()
        return {kernel.path: kernel.variable for kernel in self.kernels}

    @property
    def conditioned_kernels(self) -> dict[str, Tensor]:
        """Each `gain · C(kernel)` in the compute dtype, by the kernel's path within the layer.

        With LoRA enabled, it is computed from the merged kernel: C(W + αAB).
        """
        self._require_kernels()
        return {kernel.path: kernel.effective() for kernel in self.kernels}

    @property
    def gain_weights(self) -> list[keras.Variable]:
        """The gains that are weights. The plain layer does not have them."""
        gains = (kernel.gain_weight for kernel in self.kernels)
        return [gain for gain in gains if gain is not None]

    def reset_gains(self) -> None:
        """Reinitializes the gains that are weights from the present kernels."""
        for kernel in self.kernels:
            kernel.reset_gain()

    def __getattr__(self, name: str) -> Any:
        # Where a property has no value, PyTorch's modules would say that it does not exist.
        if name in _KERNEL_PROPERTIES:
            raise AttributeError(self._why_no_kernel(name))
        inherited = getattr(super(), "__getattr__", None)
        if inherited is None:
            raise AttributeError(f"{type(self).__qualname__!r} object has no attribute {name!r}")
        return inherited(name)

    def _require_changeable(self, name: str, value: Any) -> None:
        """Raises a ValueError for an argument that the built layer cannot change to a value."""
        why = None
        becomes_weight = value is not None and (name == "trainable_gain" or value == "initial_norm")
        if self.gain_weights or becomes_weight:
            why = "the gain is then a weight, or is one already"
        has_kernel = self.kernels and self.quantization_mode is None
        if name == "kernel_conditioner" and value is not None and not has_kernel:
            why = "it has no kernel that it can condition"
        if why is not None:
            raise ValueError(
                f"Expected `{name}` to be set before the layer is built: {why}. Received: "
                f"{name}={value!r}, layer.name={self.name!r}. Create a layer with this argument, "
                "and give it the weights of this one."
            )

    def _renew_reparametrizations(self) -> None:
        """Lets the next call compute with the arguments as they are now."""

    def _why_no_kernel(self, name: str) -> str:
        """Why a property of kernels has no value."""
        return _not_built(self.name)

    def _require_built(self) -> None:
        if not self.built:
            raise ValueError(_not_built(self.name))

    def _require_kernels(self) -> None:
        """Raises an AttributeError before `build()`, as Keras' `kernel` does for `hasattr`."""
        if not self.built:
            raise AttributeError(_not_built(self.name))


_ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "kernel_conditioner": get,
    "gain": standardize_gain,
    "trainable_gain": standardize_trainable_gain,
}
_KERNEL_PROPERTIES = frozenset({"conditioned_kernel", "conditioned_kernels", "raw_kernels"})


def _not_built(name: str) -> str:
    return (
        f"Expected a built layer, which has a kernel. Received: layer.name={name!r}, which is not "
        "built yet. Call it, or its `build()`, first."
    )
