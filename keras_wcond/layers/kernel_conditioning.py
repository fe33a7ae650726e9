import contextlib
import functools
from typing import Any

import keras
from keras import ops

from keras_wcond.conditioning import with_unit_rows
from keras_wcond.gains import activation_gain
from keras_wcond.internals import own_variables
from keras_wcond.kernels import kernel_layouts
from keras_wcond.layers.conditioned_layer import (
    computes_as_its_plain_class,
    is_our_own,
    plain_class,
    plain_config,
)
from keras_wcond.layers.configs import config_of
from keras_wcond.layers.file_sharing import FileSharing
from keras_wcond.layers.folding import assign_all
from keras_wcond.layers.lora import has_lora, merged, replacements
from keras_wcond.reparametrization import Reparametrization
from keras_wcond.scopes import Substitution


class KernelConditioning(FileSharing):
    """What every conditioned layer with kernels of its own adds to its Keras layer.

    Mixed into a Keras layer, it adds the arguments of `ConditionedLayer`, and the layer's
    own `call` runs inside `conditioned_scope()`, where the conditioned kernels are read
    in place of the raw ones.
    """

    # The kernel whose product the activation is applied to, and so the one `"auto"` is for.
    activated_kernel = "kernel"

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for name in kernel_layouts(self):
            setattr(self, _gain_attribute(name), None)
        needs_gain = self.gain == "auto" and self.kernel_conditioner is not None
        self._activation_gain = activation_gain(self.activation) if needs_gain else None

    def build(self, input_shape: Any) -> None:
        if self.kernel_conditioner is not None and self.quantization_mode is not None:
            raise ValueError(
                "Expected a floating-point dtype policy for a layer with a kernel conditioner. "
                f"Received: dtype={self.dtype_policy.name!r}, layer.name={self.name!r}. Build "
                "the layer in floating point, then call `quantize()`, which folds the "
                "conditioning into the quantized kernel."
            )
        if self.kernel_conditioner is not None and not kernel_layouts(self):
            raise ValueError(
                "Expected an equation whose kernel has an axis that appears in the output and not "
                f"in the input. Received: equation={self.equation!r}, layer.name={self.name!r}, "
                "whose kernel has no output units. Use `kernel_conditioner=None`, or the plain "
                "layer."
            )
        super().build(input_shape)
        self._add_gain_weights()

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        if self.built:
            # Keras locks the layer against further weights at the end.
            self._add_gain_weights()
        super().enable_lora(*args, **kwargs)

    @property
    def raw_kernels(self) -> dict[str, Any]:
        """The raw kernels by name. With LoRA, `layer.kernel` is a tensor, not the variable."""
        variables = {variable.name: variable for variable in own_variables(self)}
        if not variables.keys() >= kernel_layouts(self).keys():
            raise AttributeError(self._why_no_kernel("raw_kernels"))
        return {name: variables[name] for name in kernel_layouts(self)}

    @property
    def conditioned_kernels(self) -> dict[str, Any]:
        """Each `gain · C(kernel)` in the compute dtype, by the name of the kernel.

        With LoRA enabled, the conditioned kernel is that of the merged one, C(W + αAB).
        """
        self._require_kernels()
        if self.kernel_conditioner is None:
            kernels = {name: merged(self, v) for name, v in self.raw_kernels.items()}
        else:
            kernels = self._full_conditioned_kernels()
        return {name: ops.cast(kernel, self.compute_dtype) for name, kernel in kernels.items()}

    @property
    def conditioned_kernel(self) -> Any:
        """The tensor the layer multiplies by: `gain · C(kernel)`, in the compute dtype.

        With LoRA enabled, the conditioned kernel is that of the merged one, C(W + αAB).
        """
        self._require_kernels()
        if len(kernel_layouts(self)) > 1:
            raise AttributeError(self._why_no_kernel("conditioned_kernel"))
        return next(iter(self.conditioned_kernels.values()))

    def _why_no_kernel(self, name):
        if not self.built or name != "conditioned_kernel":
            return super()._why_no_kernel(name)
        return (
            f"Expected a layer with one kernel. Received: layer.name={self.name!r} with "
            f"{' and '.join(kernel_layouts(self))}. Its `conditioned_kernels` has each by its name."
        )

    def conditioned_scope(self) -> Any:
        """A scope in which the layer reads its conditioned kernels in place of the raw ones."""
        if self.kernel_conditioner is None:
            return contextlib.nullcontext()
        return Substitution(self._replacements(), self.add_loss)

    @property
    def gain_weights(self) -> list[Any]:
        """The gains that are weights, in the order of the kernels."""
        gains = [self._gain_weight(name) for name in kernel_layouts(self)]
        return [gain for gain in gains if gain is not None]

    def start_gains_anew(self) -> None:
        for name in kernel_layouts(self):
            gain = self._gain_weight(name)
            if gain is not None:
                gain.assign(self._initial_gain(name, gain.shape, gain.dtype))

    def folds(self) -> list[tuple[Any, Any]]:
        lora = [self.lora_kernel_a, self.lora_kernel_b] if has_lora(self) else []
        kernels, folded_kernels = self.raw_kernels, self._full_conditioned_kernels()
        return [
            *((variable, None) for variable in [*self.gain_weights, *lora]),
            *(
                (variable, (folded_kernels[name], bool(lora) or variable.trainable))
                for name, variable in kernels.items()
            ),
        ]

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
        plain = plain_class(type(self)).from_config(plain_config(config_of(self)))
        plain.build_from_config(self.get_build_config())
        weights: dict[str, Any] = {}
        self.save_own_variables(weights)
        for gain in self.gain_weights:
            del weights[gain.name]
        if self.kernel_conditioner is not None:
            # Keras stores the kernels first, in their order.
            for i, kernel in enumerate(self._full_conditioned_kernels().values()):
                weights[str(i)] = kernel
        # Copies: on JAX, training one layer gives away the memory of arrays it shares.
        plain.load_own_variables(
            {name: ops.convert_to_numpy(value) for name, value in weights.items()}
        )
        self.transfer_flags(plain)
        return plain

    def transfer_flags(self, plain: keras.layers.Layer) -> None:
        """Freezes of the folded layer what is frozen of this one."""
        plain.trainable = self.trainable
        if not has_lora(self):  # Which freezes the kernel that it is merged into.
            trainable = {variable.name: variable.trainable for variable in self.variables}
            for variable in plain.variables:
                variable.trainable = trainable[variable.name]

    def quantize(self, mode: Any = None, type_check: bool = True, **kwargs: Any) -> None:
        """Folds the layer in place and quantizes it; conditioner and gain are gone then."""
        # Keras refuses subclasses, whose `call` it would bypass. The conditioned classes
        # themselves are their plain ones once they are folded.
        kwargs["type_check"] = type_check and not is_our_own(type(self))
        if self.kernel_conditioner is None:
            super().quantize(mode, **kwargs)
            return
        replaced = self._replacements()
        originals = [(variable, variable.numpy()) for variable, _ in replaced]
        assign_all(replaced)
        try:
            super().quantize(mode, **kwargs)
        except Exception:
            assign_all(originals)
            raise
        for attribute in map(_gain_attribute, kernel_layouts(self)):
            if getattr(self, attribute) is not None:
                delattr(self, attribute)  # Which makes Keras forget the weight.
                setattr(self, attribute, None)
        self.kernel_conditioner, self.gain, self.trainable_gain = None, 1.0, None

    def _reparametrization(self, name):
        if self.gain != "auto":
            return Reparametrization(self.kernel_conditioner, self.gain, self.trainable_gain)
        gain = self._activation_gain if name == self.activated_kernel else 1.0
        conditioner = with_unit_rows(self.kernel_conditioner)
        return Reparametrization(conditioner, gain, self.trainable_gain)

    def _replacements(self):
        return [
            pair
            for _, variable, conditioned in self._conditioned()
            for pair in replacements(self, variable, conditioned)
        ]

    def _full_conditioned_kernels(self):
        return {name: conditioned for name, _, conditioned in self._conditioned()}

    def _conditioned(self):
        """The name of each kernel, its variable, and `gain · C(kernel)` in full precision."""
        variables = {variable.name: variable for variable in own_variables(self)}
        for name, layout in kernel_layouts(self).items():
            kernel = merged(self, variables[name])
            reparametrization = self._reparametrization(name)
            yield (
                name,
                variables[name],
                reparametrization.apply(kernel, layout, self._gain_weight(name)),
            )

    def _gain_weight(self, name):
        return getattr(self, _gain_attribute(name))

    def _add_gain_weights(self):
        if self.kernel_conditioner is None:
            return
        for name, kernel in self.raw_kernels.items():
            reparametrization = self._reparametrization(name)
            if self._gain_weight(name) is not None or not reparametrization.has_gain_weight:
                continue
            gain = self.add_weight(
                name=name.replace("kernel", "gain"),
                shape=reparametrization.gain_shape(kernel_layouts(self)[name], kernel.shape),
                initializer=functools.partial(self._initial_gain, name),
                trainable=self.trainable_gain is not None,
            )
            setattr(self, _gain_attribute(name), gain)

    def _initial_gain(self, name, shape, dtype):
        kernel = merged(self, self.raw_kernels[name])
        gain = self._reparametrization(name).initial_gain(kernel, kernel_layouts(self)[name])
        return ops.ones(shape, dtype) * ops.cast(gain, dtype)


def _gain_attribute(kernel_name):
    return kernel_name.replace("kernel", "gain_weight")
