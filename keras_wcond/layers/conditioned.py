import contextlib
import functools
import itertools
from typing import Any

import keras

from keras_wcond.backends import parameter_exchanges
from keras_wcond.gains import Gain, TrainableGain
from keras_wcond.internals import forget_variable, without_numbers
from keras_wcond.kernels.keras_layers import kernel_layouts
from keras_wcond.kernels.search import all_layers, by_position, find_kernels
from keras_wcond.layers.base.conditioned_kernel import ConditionedKernel
from keras_wcond.layers.base.conditioned_layer import ConditionedLayer, register_wrapper
from keras_wcond.layers.base.conditioning_note import (
    note_conditioning,
    warn_of_other_conditioning,
)
from keras_wcond.layers.base.configs import leave_out_of_config, refused_arguments
from keras_wcond.layers.base.folding import folded, folded_in_place
from keras_wcond.layers.base.read_check import ReadCheck, WatchedSubstitution
from keras_wcond.layers.base.substitution import follow_into_deferred_calls
from keras_wcond.layers.base.survey import survey
from keras_wcond.reparametrization import Reparametrization


@register_wrapper
class Conditioned(ConditionedLayer, keras.layers.Wrapper):
    """Any Keras layer, with its kernels conditioned.

    The wrapped layer runs its own code, and reads `gain · C(W)` wherever it has a kernel W. The
    state that it updates meanwhile, such as moving statistics and seeds, is updated as usual. Use
    it for recurrent layers, for layers made of others, and for layers of your own. For a layer that
    has a conditioned class, such as `ConditionedDense`, prefer that class, which also shares files
    with the plain layer.

    `"auto"` takes the activation of the layer that owns the kernel. It is refused where several
    kernels meet before that.

    Args:
        layer: A Keras layer.
        <arguments of conditioning>
        weights: None for every kernel that `keras_wcond` knows: those of Keras' layers, of
            subclasses of them, and of all layers inside this one, except embeddings and
            depthwise kernels of inner layers. Or a pattern such as `"lstm_cell/kernel"` or
            `"*/kernel"` for the paths of weights within the layer, a list of patterns, or
            a dict from pattern to the axes that index output units, such as
            `{"mixing": -2}`. Other weights than Keras' have theirs on axis -1 by default.
            In a config, the weights are given by position, since names may change.
            Defaults to None.
        name: String, or None for an automatic name. Defaults to None.
        trainable: Boolean. Whether the layer is trained. Defaults to True.
        dtype: Dtype or dtype policy, or None for that of the wrapped layer. Defaults to None.
        **kwargs: As of `keras.layers.Wrapper`.

    Calls take the arguments of the wrapped layer.

    Example:

    >>> layer = Conditioned(keras.layers.LSTM(4))
    >>> layer(np.ones((1, 7, 3))).shape == (1, 4)
    True
    >>> list(layer.conditioned_kernels)
    ['lstm_cell/kernel', 'lstm_cell/recurrent_kernel']
    >>> kernel = keras.ops.convert_to_numpy(layer.conditioned_kernels["lstm_cell/kernel"])
    >>> print(np.linalg.norm(kernel, axis=0)[:4].round(3))  # of 4 gates · 4 units
    [1. 1. 1. 1.]
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        kernel_conditioner: Any = "row_equilibration",
        gain: Gain = 1.0,
        trainable_gain: TrainableGain = None,
        weights: Any = None,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        **kwargs: Any,
    ):
        # Keras reads off the signature of `call` what a layer takes, masks for example.
        if isinstance(layer, keras.layers.Layer):
            self.call = self._calling(layer)
            dtype = layer.dtype_policy if dtype is None else dtype
        if "go_backwards" in kwargs:
            raise ValueError(
                "Expected a layer with arguments of its own for `keras.layers.Bidirectional`, "
                "which makes the backward layer from them. Received: "
                f"go_backwards={kwargs['go_backwards']!r} for `Conditioned`. Wrap the other way "
                "round: Conditioned(Bidirectional(layer))."
            )
        super().__init__(
            layer,
            kernel_conditioner=kernel_conditioner,
            gain=gain,
            trainable_gain=trainable_gain,
            name=name,
            trainable=trainable,
            dtype=dtype,
            **kwargs,
        )
        _refuse_dropout_of_cells(layer)
        self.autocast = layer.autocast
        self.supports_masking = layer.supports_masking
        self.named_weights = weights
        self._is_searched = False
        self._unbuilt: tuple[keras.layers.Layer, ...] = ()
        self._kernels: tuple[ConditionedKernel, ...] = ()
        self._by_position: tuple[dict[str, Any], ...] = ()
        self._exchanges: tuple[tuple[int, Any], ...] = ()
        self._read_check = ReadCheck()

    def _calling(self, layer):
        @functools.wraps(layer.call)
        def call(*args, **kwargs):
            self._build_for(args, kwargs)  # Some wrappers of Keras' use `call` directly.
            with self.conditioned_scope() as scope:
                outputs = self.layer(*args, **kwargs)
            if scope is not None:
                self._read_check.require_read(scope, self.layer, self._kernels)
            return outputs

        return call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._build_for(args, kwargs)
        return super().__call__(*args, **kwargs)

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        # JAX keeps the program of a function, and the kernels it was traced with, while the
        # function lives. That of a method lives for one call; that of `call` here would stay.
        return super().rematerialized_call(functools.partial(layer_call), *args, **kwargs)

    def _build_for(self, args, kwargs):
        if self._is_searched:
            return
        _build_by_calling(self.layer, args, kwargs)
        self.build()

    def build(self, *args: Any, **kwargs: Any) -> None:
        if not self.layer.built:
            self.layer.build(*args, **kwargs)
        shapes = [*args, *kwargs.values()]
        if len(shapes) == 1:
            tensor = keras.KerasTensor(shapes[0], self.layer.compute_dtype)
            _build_by_calling(self.layer, [tensor], {})
        self._is_searched = True
        for inner in all_layers(self.layer):
            follow_into_deferred_calls(inner)
        if self.kernel_conditioner is not None:
            self._unbuilt = tuple(layer for layer in all_layers(self.layer) if not layer.built)
            kernels = find_kernels(self.layer, self.named_weights)
            _refuse_a_second_conditioning(self.layer, kernels)
            self._kernels = tuple(
                ConditionedKernel(kernel, self._reparametrization(kernel)) for kernel in kernels
            )
            for kernel in self._kernels:
                kernel.add_gain(self.add_weight, kernel.path.replace("/", "_") + "_gain")
            self._exchanges = tuple(
                (index, exchange)  # Not the variable, which Keras would count as this layer's own.
                for index, kernel in enumerate(self._kernels)
                for exchange in parameter_exchanges(kernel.owner, kernel.variable)
            )
            for owner in {id(kernel.owner): kernel.owner for kernel in self._kernels}.values():
                owner.quantize = functools.partial(self._quantize, owner.quantize)
            # Now, since adapters that are added later move the weights.
            self._by_position = tuple(by_position(self.layer, kernels))

    def get_build_config(self) -> dict[str, Any] | None:
        return self.layer.get_build_config()

    def build_from_config(self, config: dict[str, Any]) -> None:
        if not self.layer.built:
            self.layer.build_from_config(config)
        # Where layers inside are built by calling them only, that has to wait for a call.
        if _is_built_throughout(self.layer):
            self.build()

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_mask(*args, **kwargs)

    @property
    def state_size(self) -> Any:
        """Of a wrapped cell, as `keras.layers.RNN` asks for it."""
        return self.layer.state_size

    @property
    def output_size(self) -> Any:
        """Of a wrapped cell, as `keras.layers.RNN` asks for it."""
        return self.layer.output_size

    def get_initial_state(self, *args: Any, **kwargs: Any) -> Any:
        """Of a wrapped cell, as `keras.layers.RNN` asks for it."""
        return self.layer.get_initial_state(*args, **kwargs)

    @property
    def reset_state(self) -> Any:
        """Of a wrapped stateful recurrent layer."""
        return self.layer.reset_state

    @property
    def kernels(self) -> tuple[ConditionedKernel, ...]:
        """The conditioned kernels, by their paths within the layer; none before it is built."""
        return self._kernels

    def conditioned_scope(self) -> Any:
        """A scope in which the wrapped layer reads conditioned kernels in place of raw ones."""
        if not self._kernels:
            return contextlib.nullcontext()
        self._refuse_late_kernels()
        self._refuse_quantized_kernels()
        pairs = [kernel.replacements(kernel.value()) for kernel in self._kernels]
        return WatchedSubstitution(
            [*itertools.chain(*pairs)], self.add_loss, self._pairs_to_exchange()
        )

    def fold(self) -> keras.layers.Layer:
        """The plain layer that computes the same outputs.

        Returns:
            A new, built layer of the wrapped layer's class, with its name and
            configuration. Its kernels are the conditioned kernels, gains included. This
            layer and the one it wraps are left as they are.
        """
        self._require_built()
        return folded(self)

    def save_own_variables(self, store: Any) -> None:
        """Saves the gains that are weights, with a note of conditioner and gain."""
        note_conditioning(self, store)
        super().save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Loads the gains; warns if they were saved with another conditioner or gain."""
        warn_of_other_conditioning(self, store, has_stored_gain=len(store.keys()) > 0)
        super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        weights = self.named_weights
        if weights is not None and self._kernels:
            weights = [dict(kernel) for kernel in self._by_position]
        elif isinstance(weights, (list, dict)):
            weights = type(weights)(weights)  # Keras holds them in wrappers of its own.
        return {**super().get_config(), "weights": weights}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Conditioned":
        saved = set(config["layer"]["config"])
        conditioned = super().from_config(dict(config), custom_objects=custom_objects)
        refused = refused_arguments(conditioned.layer) - saved
        if refused:
            # What was left out once, so that the layer could be loaded, is left out again.
            leave_out_of_config(conditioned.layer, refused)
        return conditioned

    def _quantize(self, quantize, *args, **kwargs):
        """Folds the wrapped layer in place for good, and quantizes one of the layers in it."""
        self._refuse_quantized_kernels()
        with folded_in_place(self._kernels):
            quantize(*args, **kwargs)
        for gain in self.gain_weights:
            forget_variable(self, gain)
        self._kernels, self._by_position, self._exchanges = (), (), ()
        self.named_weights = None
        self.kernel_conditioner, self.gain, self.trainable_gain = None, 1.0, None

    def _refuse_late_kernels(self):
        late = [layer.name for layer in self._unbuilt if layer.built]
        if late:
            raise ValueError(
                "Expected a layer that builds all layers inside it when it is built or first "
                f"called. Received: layer.name={self.layer.name!r}, of which {late} were built "
                "later and are not conditioned. Build them first, then wrap the layer."
            )

    def _reparametrization(self, kernel):
        activation = _activation(kernel) if self.gain == "auto" else None
        return Reparametrization.before(
            activation, self.kernel_conditioner, self.gain, self.trainable_gain
        )

    def _refuse_quantized_kernels(self):
        for kernel in self._kernels:
            _refuse_quantized(kernel)

    def _pairs_to_exchange(self):
        return [(self._kernels[index].variable, exchange) for index, exchange in self._exchanges]


def _is_built_throughout(layer):
    return all(inner.built for inner in all_layers(layer))


def _build_by_calling(layer, args, kwargs):
    """Has all layers in a layer built, by calling it on tensors that hold no numbers."""
    if _is_built_throughout(layer):
        return
    args, kwargs = keras.tree.map_structure(without_numbers, (args, kwargs))
    layer(*args, **kwargs)
    if not _is_built_throughout(layer):
        # With a `compute_output_shape` of its own, its `call` did not need to run for that.
        keras.Operation.compute_output_spec(layer, *args, **kwargs)


def _activation(kernel):
    activation = getattr(kernel.owner, "activation", None)
    if activation is None or len(kernel_layouts(kernel.owner)) != 1:
        raise ValueError(
            "Expected a number, 'initial_norm' or 'kernel_norm' as the gain of a kernel to which "
            "not just one activation belongs. Received: gain='auto' for "
            f"{kernel.path!r} of a {type(kernel.owner).__qualname__}."
        )
    return activation


def _refuse_a_second_conditioning(layer, kernels):
    conditioned = {id(each.variable) for each in survey(layer) if each.conditioned_by}
    for kernel in kernels:
        if id(kernel.variable) in conditioned:
            raise ValueError(
                "Expected kernels that are not conditioned yet. Received: "
                f"layer.name={layer.name!r}, whose {kernel.path!r} already is by a layer inside "
                "it. Name the other kernels with `weights=`, or condition this one in one place "
                "only."
            )


def _refuse_quantized(kernel):
    if kernel.owner.quantization_mode is not None:
        raise ValueError(
            "Expected a layer that was folded before it was quantized. Received: "
            f"{kernel.path!r} of layer {kernel.owner.name!r}, which was quantized "
            f"({kernel.owner.quantization_mode}) inside `Conditioned`. Quantize what "
            "`fold()` or `fold_model()` returns."
        )


def _refuse_dropout_of_cells(layer):
    cells = layer.cells if isinstance(layer, keras.layers.StackedRNNCells) else [layer]
    for cell in cells:
        masked = hasattr(cell, "reset_dropout_mask")
        if masked and max(cell.dropout, cell.recurrent_dropout) > 0.0:
            raise ValueError(
                "Expected a cell without dropout, whose masks `keras.layers.RNN` would not renew "
                f"inside a wrapper. Received: layer={cell.name!r} with dropout={cell.dropout}, "
                f"recurrent_dropout={cell.recurrent_dropout}. Wrap the recurrent layer around "
                "the cell in its place."
            )
