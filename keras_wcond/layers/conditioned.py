import contextlib
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_wcond.backends import parameter_exchanges
from keras_wcond.conditioners.conditioner import ConditionerLike
from keras_wcond.gains import Gain, TrainableGain
from keras_wcond.internals import without_numbers
from keras_wcond.kernels.keras_layers import kernel_layouts
from keras_wcond.kernels.search import (
    Kernel,
    Weights,
    all_layers,
    by_position,
    find_kernels,
)
from keras_wcond.layers.base.conditioned_kernel import ConditionedKernel
from keras_wcond.layers.base.conditioned_layer import ConditionedLayer, register_wrapper
from keras_wcond.layers.base.conditioning_note import (
    note_conditioning,
    warn_of_other_conditioning,
)
from keras_wcond.layers.base.configs import leave_out_of_config, refused_arguments
from keras_wcond.layers.base.folding import folded, folded_for_good
from keras_wcond.layers.base.read_check import ReadCheck, WatchedSubstitution
from keras_wcond.layers.base.substitution import follow_into_deferred_calls
from keras_wcond.layers.base.survey import survey
from keras_wcond.linalg.arrays import Tensor
from keras_wcond.reparametrization import Reparametrization


@register_wrapper
class Conditioned(ConditionedLayer, keras.layers.Wrapper):
    """Any Keras layer, with its kernels conditioned.

    The wrapped layer runs its own code, and reads `gain · C(W)` wherever it has a kernel W. The
    state that it updates, such as moving statistics and seeds, is updated as usual. Use it for
    recurrent layers, for layers made of others, and for layers of your own. For a layer that has a
    conditioned class, such as `ConditionedDense`, prefer that class, which also shares files with
    the plain layer.

    `gain="auto"` takes the activation of the layer that owns the kernel. That layer must have
    exactly one kernel and an activation.

    Args:
        layer: A Keras layer, built or not.
        <arguments of conditioning>
        weights: The kernels to condition. Defaults to None.

            - None for every kernel that `keras_wcond` knows. These are the kernels of Keras'
              layers, of their subclasses, and of all layers inside this one, except embeddings
              and depthwise kernels of inner layers.
            - A pattern of paths of weights within the layer, such as `"lstm_cell/kernel"` or
              `"*/kernel"`, or a list of patterns.
            - A dict from patterns to the axes that index output units, such as
              `{"mixing": -2}`. By default these are known for Keras' kernels, and axis -1 for
              other weights.
            - In a config, a list of positions, since names may change.
        name: String, or None for an automatic name. Defaults to None.
        trainable: Boolean, whether the layer is trained. Defaults to True.
        dtype: Dtype or dtype policy, or None for that of the wrapped layer. Defaults to None.
        **kwargs: Other arguments of `keras.layers.Wrapper`.

    Calls take the arguments of the wrapped layer, and return its outputs with its shapes and
    dtypes. Kernels that the first call does not read are a `ValueError`, and so are weights that
    match no kernel, or a kernel that is conditioned already.

    Examples:
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
        kernel_conditioner: ConditionerLike = "row_equilibration",
        gain: Gain = 1.0,
        trainable_gain: TrainableGain = None,
        weights: Weights | None = None,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | keras.DTypePolicy | None = None,
        **kwargs: Any,
    ):
        # Keras finds the arguments of a layer, such as masks, in the signature of its `call`.
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
        self._by_position: tuple[dict[str, Any], ...] = ()
        self._exchanges: tuple[tuple[int, Callable[[Tensor], Tensor]], ...] = ()
        self._read_check = ReadCheck()

    def _calling(self, layer: keras.layers.Layer) -> Callable[..., Any]:
        @functools.wraps(layer.call)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._build_for(args, kwargs)  # Some Keras wrappers use `call` directly.
            with self.conditioned_scope() as scope:
                outputs = self.layer(*args, **kwargs)
            if scope is not None:
                self._read_check.require_read(scope, self.layer, self._kernels)
            return outputs

        return call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._build_for(args, kwargs)
        return super().__call__(*args, **kwargs)

    def rematerialized_call(self, layer_call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # JAX keeps the program of a function, and the kernels it was traced with, while the
        # function lives. A bound method lives for one call, but `call` here lives with the layer.
        return super().rematerialized_call(functools.partial(layer_call), *args, **kwargs)

    def _build_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
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
                (index, exchange)  # Keras would count a variable here as this layer's own.
                for index, kernel in enumerate(self._kernels)
                for exchange in parameter_exchanges(kernel.owner, kernel.variable)
            )
            for owner in {id(kernel.owner): kernel.owner for kernel in self._kernels}.values():
                owner.quantize = functools.partial(self._quantize, owner.quantize)
            # Positions are taken now, since adapters that are added later move the weights.
            self._by_position = tuple(by_position(self.layer, kernels))

    def get_build_config(self) -> dict[str, Any] | None:
        config: dict[str, Any] | None = self.layer.get_build_config()
        return config

    def build_from_config(self, config: dict[str, Any]) -> None:
        if not self.layer.built:
            self.layer.build_from_config(config)
        # Layers inside that are built only by calling them have to wait for a call.
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
        """The state size of a wrapped cell, which `keras.layers.RNN` reads."""
        return self.layer.state_size

    @property
    def output_size(self) -> Any:
        """The output size of a wrapped cell, which `keras.layers.RNN` reads."""
        return self.layer.output_size

    def get_initial_state(self, *args: Any, **kwargs: Any) -> Any:
        """The initial state of a wrapped cell, which `keras.layers.RNN` asks for."""
        return self.layer.get_initial_state(*args, **kwargs)

    @property
    def reset_state(self) -> Any:
        """The method of a wrapped stateful recurrent layer that resets its state."""
        return self.layer.reset_state

    def conditioned_scope(
        self,
    ) -> contextlib.AbstractContextManager[WatchedSubstitution | None]:
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
        """Loads the gains, and warns if they were saved with another conditioner or gain."""
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
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Conditioned":
        saved = set(config["layer"]["config"])
        conditioned: Conditioned = super().from_config(dict(config), custom_objects=custom_objects)
        refused = refused_arguments(conditioned.layer) - saved
        if refused:
            # They were left out so that the layer could be loaded, and have to stay out.
            leave_out_of_config(conditioned.layer, refused)
        return conditioned

    def _quantize(self, quantize: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Folds the wrapped layer in place, and quantizes one of the layers in it."""
        self._refuse_quantized_kernels()
        with folded_for_good(self):
            quantize(*args, **kwargs)
        self._by_position, self._exchanges, self.named_weights = (), (), None

    def fold_in_place(self) -> None:
        """Sets the kernels to the conditioned ones, gains included, and ends the conditioning."""
        self._quantize(lambda: None)

    def _refuse_late_kernels(self) -> None:
        late = [layer.name for layer in self._unbuilt if layer.built]
        if late:
            raise ValueError(
                "Expected a layer that builds all layers inside it when it is built or first "
                f"called. Received: layer.name={self.layer.name!r}, of which {late} were built "
                "later and are not conditioned. Build them first, then wrap the layer."
            )

    def _renew_reparametrizations(self) -> None:
        for each in self._kernels:
            each.reparametrization = self._reparametrization(each.kernel)

    def _reparametrization(self, kernel: Kernel) -> Reparametrization | None:
        if self.kernel_conditioner is None:
            return None
        activation = _activation(kernel) if self.gain == "auto" else None
        return Reparametrization.before(
            activation, self.kernel_conditioner, self.gain, self.trainable_gain
        )

    def _refuse_quantized_kernels(self) -> None:
        for kernel in self._kernels:
            _refuse_quantized(kernel)

    def _pairs_to_exchange(
        self,
    ) -> list[tuple[keras.Variable, Callable[[Tensor], Tensor]]]:
        return [(self._kernels[index].variable, exchange) for index, exchange in self._exchanges]


def _is_built_throughout(layer: keras.layers.Layer) -> bool:
    return all(inner.built for inner in all_layers(layer))


def _build_by_calling(
    layer: keras.layers.Layer, args: Sequence[Any], kwargs: dict[str, Any]
) -> None:
    """Builds all layers inside a layer by calling it on symbolic tensors."""
    if _is_built_throughout(layer):
        return
    args, kwargs = keras.tree.map_structure(without_numbers, (args, kwargs))
    layer(*args, **kwargs)
    if not _is_built_throughout(layer):
        # Keras does not run the `call` of a layer that defines `compute_output_shape`.
        keras.Operation.compute_output_spec(layer, *args, **kwargs)


def _activation(kernel: Kernel) -> Callable[[Tensor], Tensor]:
    activation: Callable[[Tensor], Tensor] | None = getattr(kernel.owner, "activation", None)
    if activation is None or len(kernel_layouts(kernel.owner)) != 1:
        raise ValueError(
            "Expected a number, 'initial_norm' or 'kernel_norm' as the gain of a kernel to which "
            "not just one activation belongs. Received: gain='auto' for "
            f"{kernel.path!r} of a {type(kernel.owner).__qualname__}."
        )
    return activation


def _refuse_a_second_conditioning(layer: keras.layers.Layer, kernels: Sequence[Kernel]) -> None:
    conditioned = {id(each.variable) for each in survey(layer) if each.conditioned_by}
    for kernel in kernels:
        if id(kernel.variable) in conditioned:
            raise ValueError(
                "Expected kernels that are not conditioned yet. Received: "
                f"layer.name={layer.name!r}, whose {kernel.path!r} already is by a layer inside "
                "it. Name the other kernels with `weights=`, or condition this one in one place "
                "only."
            )


def _refuse_quantized(kernel: ConditionedKernel) -> None:
    if kernel.owner.quantization_mode is not None:
        raise ValueError(
            "Expected a layer that was folded before it was quantized. Received: "
            f"{kernel.path!r} of layer {kernel.owner.name!r}, which was quantized "
            f"({kernel.owner.quantization_mode}) inside `Conditioned`. Quantize what "
            "`fold()` or `fold_model()` returns."
        )


def _refuse_dropout_of_cells(layer: keras.layers.Layer) -> None:
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
