from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_wcond.internals import own_variables
from keras_wcond.kernels.keras_layers import kernel_layouts
from keras_wcond.kernels.search import Kernel
from keras_wcond.layers.base.conditioned_kernel import ConditionedKernel
from keras_wcond.layers.base.conditioned_layer import is_our_own
from keras_wcond.layers.base.file_sharing import FileSharing
from keras_wcond.layers.base.folding import folded, folded_for_good
from keras_wcond.linalg.arrays import Tensor
from keras_wcond.reparametrization import Reparametrization


class KernelConditioning(FileSharing):
    """Mixin for a Keras layer with kernels of its own, which it conditions.

    It adds the arguments of `ConditionedLayer`. The layer's own `call` runs inside
    `conditioned_scope()`, where the conditioned kernels are read in place of the raw ones.
    """

    # The kernel whose product the activation is applied to, which is the kernel `"auto"` is for.
    activated_kernel = "kernel"

    def build(self, input_shape: Sequence[int | None]) -> None:
        if self.kernel_conditioner is not None and self.quantization_mode is not None:
            raise ValueError(
                "Expected a floating-point dtype policy for a layer with a kernel conditioner. "
                f"Received: dtype={self.dtype_policy.name!r}, layer.name={self.name!r}. Build "
                "the layer in floating point, then call `quantize()`, which folds the "
                "conditioning into the quantized kernel."
            )
        if self.kernel_conditioner is not None and not kernel_layouts(self):
            raise ValueError(self._why_no_layout())
        self._kernels = ()
        super().build(input_shape)
        if not self._kernels:
            self._find_kernels()
        self._require_own_kernels()

    @property
    def enable_lora(self) -> Callable[..., None]:
        """The method of the Keras layer, if it has one: separable convolutions do not."""
        if self.built and not self._kernels:
            # This is inside the layer's own `build`, after which Keras refuses further weights.
            self._find_kernels()
        enable: Callable[..., None] = super().enable_lora
        return enable

    @property
    def conditioned_kernel(self) -> Tensor:
        """The tensor that the layer multiplies by: `gain · C(kernel)`, in the compute dtype.

        With LoRA enabled, it is computed from the merged kernel: C(W + αAB).

        Raises:
            AttributeError: The layer is not built, or has more than one kernel.
        """
        self._require_kernels()
        if len(self._kernels) != 1:
            raise AttributeError(self._why_no_kernel("conditioned_kernel"))
        return self._kernels[0].effective()

    @property
    def gain_weight(self) -> keras.Variable | None:
        """The gain of a layer with one kernel if it is a weight, or None."""
        gains = self.gain_weights
        return gains[0] if len(self._kernels) == 1 and gains else None

    def _require_own_kernels(self) -> None:
        missing = sorted(kernel_layouts(self).keys() - {kernel.path for kernel in self._kernels})
        if missing and self.quantization_mode is None:
            raise ValueError(
                f"Expected a layer that has the weights {missing} itself. Received: "
                f"layer.name={self.name!r} of type {type(self).__qualname__}, whose inner layers "
                "have them. Wrap the Keras layer in `Conditioned`."
            )

    def _why_no_layout(self) -> str:
        equation = getattr(self, "equation", None)
        if equation is None:
            return (
                "Expected a Keras layer whose kernels `keras_wcond` knows, which are those in "
                f"`keras_wcond/kernels/keras_layers.py`. Received: layer.name={self.name!r} of "
                f"type {type(self).__qualname__}. Wrap the layer in `Conditioned`, and name its "
                "kernels with `weights`."
            )
        return (
            "Expected an equation whose kernel has an axis that appears in the output and not "
            f"in the input. Received: equation={equation!r}, layer.name={self.name!r}, "
            "whose kernel has no output units. Use `kernel_conditioner=None`, or the plain "
            "layer."
        )

    def _why_no_kernel(self, name: str) -> str:
        if not self.built or name != "conditioned_kernel":
            return super()._why_no_kernel(name)
        return (
            f"Expected a layer with one kernel. Received: layer.name={self.name!r} with "
            f"{' and '.join(kernel_layouts(self))}. Its `conditioned_kernels` has each by its name."
        )

    def fold(self) -> keras.layers.Layer:
        """The plain Keras layer that computes the same outputs.

        Returns:
            A new, built layer of the Keras class that this one extends, with this layer's name
            and configuration. Its kernel is the conditioned kernel with gain and LoRA update
            merged in. This layer is left as it is. The outputs are the same, except for a
            quantized layer with LoRA, whose merged kernel Keras quantizes again.
        """
        self._require_built()
        return folded(self)

    def quantize(self, mode: str | None = None, type_check: bool = True, **kwargs: Any) -> None:
        """Folds the layer in place, which removes conditioner and gain, and quantizes it."""
        # Keras refuses subclasses, since it would bypass their `call`. The package's own classes
        # compute as their plain ones once they are folded.
        kwargs["type_check"] = type_check and not is_our_own(type(self))
        if self.kernel_conditioner is None:
            super().quantize(mode, **kwargs)
            self._find_kernels()
            return
        with folded_for_good(self):
            super().quantize(mode, **kwargs)
        self._find_kernels()

    def fold_in_place(self) -> None:
        """Sets the kernels to the conditioned ones, gains included, and ends the conditioning."""
        with folded_for_good(self):
            pass
        self._find_kernels()

    def _renew_reparametrizations(self) -> None:
        # The activation as it is now, whatever it is set to later.
        self._reparametrizations = {
            name: self._reparametrization(name) for name in kernel_layouts(self)
        }
        for kernel in self._kernels:
            kernel.reparametrization = self._reparametrizations[kernel.path]

    def _reparametrization(self, name: str) -> Reparametrization | None:
        if self.kernel_conditioner is None:
            return None
        activation = self.activation if name == self.activated_kernel else None
        return Reparametrization.before(
            activation, self.kernel_conditioner, self.gain, self.trainable_gain
        )

    def _find_kernels(self) -> None:
        """Finds the kernels that the layer has now, and adds the gains that are weights."""
        variables = {variable.name: variable for variable in own_variables(self)}
        self._kernels = tuple(
            ConditionedKernel(
                Kernel(variables[name], layout, name, (self,)), self._reparametrizations[name]
            )
            for name, layout in kernel_layouts(self).items()
            if name in variables  # After some quantizations it has another name.
        )
        for kernel in self._kernels:
            kernel.add_gain(self.add_weight, _gain_name(kernel.path))


def _gain_name(path: str) -> str:
    return path.replace("kernel", "gain") if "kernel" in path else f"{path}_gain"
