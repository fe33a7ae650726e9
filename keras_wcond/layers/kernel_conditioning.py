import contextlib
from typing import Any

import keras
from keras import ops

from keras_wcond import conditioners
from keras_wcond.conditioning import condition, is_kernel_norm
from keras_wcond.gains import (
    activation_gain,
    norm_ratio,
    standardize_gain,
    standardize_trainable_gain,
)
from keras_wcond.kernels import kernel_layouts
from keras_wcond.layers.file_sharing import (
    FileSharing,
    automatic_name,
    computes_as_its_plain_class,
    is_our_own,
    plain_class,
)
from keras_wcond.norms import widened
from keras_wcond.scopes import Substitution, full_precision


class KernelConditioning(FileSharing):
    """What every conditioned layer adds to the Keras layer it extends.

    Mixed into a Keras layer with a `kernel`, it adds the three arguments below, and the
    layer's own `call` runs inside `conditioned_scope()`, where the conditioned kernel is
    read in place of the raw one.

    Args:
        *args: The positional arguments of the Keras layer.
        kernel_conditioner: None, a name, a config or an instance of a conditioner. None
            is exactly the plain Keras layer, whatever the gain.
        gain: What the conditioned kernel is multiplied by. A positive number; `"auto"`
            for `1/√E[φ(z)²]`, z ~ N(0, 1), of the activation φ the layer is created with
            (ReLU √2); `"initial_norm"` for the number that keeps the Frobenius norm the
            kernel had when it was initialized, a non-trainable weight; `"kernel_norm"` for
            `‖W‖_F / ‖C(W)‖_F` at every step, with gradient, so that the scale stays the
            raw kernel's and only the spectrum is conditioned.
        trainable_gain: None, `"scalar"` for one trainable factor, or `"per_unit"` for one
            per output unit, a weight that starts at the gain (for `"kernel_norm"`, one
            that starts at 1 and multiplies it). `"per_unit"` makes row equilibration into
            weight normalization, and can undo the conditioning.
        **kwargs: The keyword arguments of the Keras layer.
    """

    def __init__(
        self,
        *args: Any,
        kernel_conditioner: Any = "row_equilibration",
        gain: float | str = 1.0,
        trainable_gain: str | None = None,
        **kwargs: Any,
    ):
        if kwargs.get("name") is None and is_our_own(type(self)):
            kwargs["name"] = automatic_name(type(self).__qualname__)
        super().__init__(*args, **kwargs)
        self.kernel_conditioner = conditioners.get(kernel_conditioner)
        self.gain = standardize_gain(gain, words=("auto", "initial_norm", "kernel_norm"))
        self.trainable_gain = standardize_trainable_gain(trainable_gain)
        self.gain_weight = None
        needs_gain = gain == "auto" and self.kernel_conditioner is not None
        self._activation_gain = activation_gain(self.activation) if needs_gain else None

    def build(self, input_shape: Any) -> None:
        if self.kernel_conditioner is not None and self.quantization_mode is not None:
            raise ValueError(
                "Expected a floating-point dtype policy for a layer with a kernel conditioner. "
                f"Received: dtype={self.dtype_policy.name!r}, layer.name={self.name!r}. Build "
                "the layer in floating point, then call `quantize()`, which folds the "
                "conditioning into the quantized kernel."
            )
        super().build(input_shape)
        self._add_gain_weight()

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        if self.built:
            # Keras locks the layer against further weights at the end.
            self._add_gain_weight()
        super().enable_lora(*args, **kwargs)

    @property
    def conditioned_kernel(self) -> Any:
        """The tensor the layer multiplies by: `gain · C(kernel)`, in the compute dtype.

        With LoRA enabled, the conditioned kernel is that of the merged one, C(W + αAB).
        """
        self._require_built()
        plain = self.kernel_conditioner is None
        kernel = self.kernel if plain else self._full_conditioned_kernel()
        return ops.cast(kernel, self.compute_dtype)

    def conditioned_scope(self) -> Any:
        """A scope in which the layer reads its conditioned kernel in place of the raw one."""
        if self.kernel_conditioner is None:
            return contextlib.nullcontext()
        return Substitution(self._replacements())

    def fold(self) -> keras.layers.Layer:
        """The plain Keras layer that computes the same outputs.

        Returns:
            A new, built layer of the Keras class this one extends, with this layer's name
            and configuration. Its kernel is the conditioned kernel with gain and LoRA
            update merged in. This layer is left as it is. The outputs are the same, except
            for a quantized layer with LoRA, whose merged kernel Keras quantizes anew.
        """
        self._require_built()
        if not computes_as_its_plain_class(type(self)):
            raise ValueError(
                "Expected a layer whose `call` is that of the conditioned layer it extends, "
                "since only such a layer has a plain one to fold into. Received: "
                f"layer.name={self.name!r} of type {type(self).__qualname__}, which has a "
                "`call` of its own. Move what it adds to a layer around it."
            )
        config = super().get_config()
        for lora_argument in ("lora_rank", "lora_alpha"):
            config.pop(lora_argument, None)
        keras_class = plain_class(type(self))
        plain = keras_class.from_config(config)
        plain.build_from_config(self.get_build_config())
        weights: dict[str, Any] = {}
        keras_class.save_own_variables(self, weights)
        if self.kernel_conditioner is not None:
            weights["0"] = self._full_conditioned_kernel()
        plain.load_own_variables(weights)
        return plain

    def quantize(self, mode: Any = None, type_check: bool = True, **kwargs: Any) -> None:
        """Folds the layer in place and quantizes it; conditioner and gain are gone then."""
        # Keras refuses subclasses, whose `call` it would bypass. The conditioned classes
        # themselves are their plain ones once they are folded.
        kwargs["type_check"] = type_check and not is_our_own(type(self))
        if self.kernel_conditioner is None:
            super().quantize(mode, **kwargs)
            return
        replacements = self._replacements()
        originals = [(variable, variable.numpy()) for variable, _ in replacements]
        _assign(replacements)
        try:
            super().quantize(mode, **kwargs)
        except Exception:
            _assign(originals)
            raise
        self.kernel_conditioner, self.gain, self.trainable_gain = None, 1.0, None
        if self.gain_weight is not None:
            del self.gain_weight
            self.gain_weight = None

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_conditioner": conditioners.serialize(self.kernel_conditioner),
            "gain": self.gain,
            "trainable_gain": self.trainable_gain,
        }

    def _require_built(self):
        if not self.built:
            raise ValueError(
                "Expected a built layer, which has a kernel. Received: "
                f"layer.name={self.name!r}, which is not built yet. Call it, or its "
                "`build()`, first."
            )

    @property
    def _layout(self):
        return kernel_layouts(self)["kernel"]

    def _replacements(self):
        replacements = [(self._kernel_variable, self._full_conditioned_kernel())]
        if self.lora_enabled:
            # The conditioned kernel holds the low-rank update already.
            update = self.lora_kernel_b
            replacements.append((update, ops.zeros(update.shape, dtype=update.dtype)))
        return replacements

    def _full_conditioned_kernel(self):
        with full_precision():
            kernel = self.kernel
            if self.gain_weight is None:
                return condition(kernel, self.kernel_conditioner, self._layout, self._base_gain)
            base_gain = "kernel_norm" if is_kernel_norm(self.gain) else 1.0
            conditioned = condition(kernel, self.kernel_conditioner, self._layout, base_gain)
            gain = widened(self.gain_weight)
            if self.trainable_gain == "per_unit":
                gain = ops.reshape(gain, self._layout.broadcastable_units(kernel.shape))
            return conditioned * ops.cast(gain, conditioned.dtype)

    @property
    def _base_gain(self):
        return self.gain if self._activation_gain is None else self._activation_gain

    def _add_gain_weight(self):
        wanted = self.gain == "initial_norm" or self.trainable_gain is not None
        if self.kernel_conditioner is None or self.gain_weight is not None or not wanted:
            return
        per_unit = self.trainable_gain == "per_unit"
        self.gain_weight = self.add_weight(
            name="gain",
            shape=self._layout.units(self.kernel.shape) if per_unit else (),
            initializer=self._initial_gain,
            trainable=self.trainable_gain is not None,
        )

    def _initial_gain(self, shape, dtype):
        gain = self._base_gain
        if is_kernel_norm(gain):
            gain = 1.0
        elif gain == "initial_norm":
            with full_precision():
                kernel = widened(self.kernel)
                gain = norm_ratio(kernel, self.kernel_conditioner(kernel, self._layout))
        return ops.ones(shape, dtype) * ops.cast(gain, dtype)


def _assign(values):
    for variable, value in values:
        variable.assign(value)
