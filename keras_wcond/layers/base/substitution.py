"""A scope in which conditioned kernels replace raw ones inside a layer's own `call`."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import keras

from keras_wcond.backends import call_traced_anew
from keras_wcond.internals import full_precision, get_stateless_scope, is_rematerialized
from keras_wcond.linalg.arrays import Tensor, cast


class Substitution(keras.StatelessScope):
    """Scope in which some variables read as other tensors, and all else is as outside.

    Inside the scope, a layer runs its own code and finds the conditioned tensor wherever it reads
    the raw kernel. The variables themselves are not touched. A plain `keras.StatelessScope` would
    also hide the values of an enclosing scope (JAX training runs in one) and drop updates of
    variables. This scope looks up variables that it does not replace outside, and applies updates
    on exit.

    Args:
        replacements: List of pairs of a variable and the tensor to read in its place.
        add_loss: Function that takes the list of losses that layers added inside, called on exit.
            An enclosing scope receives the losses in place of the function. None drops them.
            Defaults to None.
        exchanges: Sequence of pairs of a variable and a function, for variables whose tensor is
            also read elsewhere, as the parameter of a PyTorch module. The function puts its
            argument there and returns the previous tensor. Defaults to none.

    Examples:
        >>> layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        >>> layer.build((None, 2))
        >>> with Substitution([(layer.kernel, 5.0 * keras.ops.ones((2, 1)))]):
        ...     y = layer(np.ones((1, 2)))
        >>> print(keras.ops.convert_to_numpy(y), keras.ops.convert_to_numpy(layer.kernel[0]))
        [[10.]] [1.]
    """

    def __init__(
        self,
        replacements: list[tuple[keras.Variable, Tensor]],
        add_loss: Callable[[Any], None] | None = None,
        exchanges: Sequence[tuple[keras.Variable, Callable[[Tensor], Tensor]]] = (),
    ):
        super().__init__(initialize_variables=False)
        self.add_loss_outside = add_loss
        with full_precision():
            for variable, tensor in replacements:
                # Not `variable.dtype`, which names the compute dtype in a layer's call.
                dtype = variable.value.dtype
                value = tensor if tensor.dtype == dtype else cast(tensor, dtype)
                self.state_mapping[id(variable)] = value
        self.replaced = tuple(self.state_mapping)
        self.exchanges = exchanges
        self.updates: dict[int, tuple[keras.Variable, Tensor]] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        self.originals = [
            exchange(self.state_mapping[id(variable)]) for variable, exchange in self.exchanges
        ]
        outer = self.original_scope
        self.collect_losses = outer is None or outer.collect_losses
        return self

    def resumed(self, tensors: Iterable[Tensor]) -> Self:
        """A scope for a part of a layer's body that runs later or apart from the rest.

        Args:
            tensors: The tensors to read in place of the replaced variables, in their order.

        Returns:
            A scope of the same class.
        """
        scope = type(self)([])
        scope.replaced = self.replaced
        scope.state_mapping = dict(zip(self.replaced, tensors, strict=True))
        scope.exchanges = self.exchanges
        return scope

    def get_current_value(self, variable: keras.Variable) -> Tensor | None:
        value = self.state_mapping.get(id(variable))
        if value is None and self.original_scope is not None:
            return self.original_scope.get_current_value(variable)
        return value

    def add_loss(self, loss: Tensor) -> None:
        if self.original_scope is None:
            super().add_loss(loss)
        else:
            self.original_scope.add_loss(loss)

    def add_update(self, update: tuple[keras.Variable, Tensor]) -> None:
        variable, value = update
        self.state_mapping[id(variable)] = value
        self.updates[id(variable)] = update

    def __exit__(self, exception_type: type[BaseException] | None, *args: Any) -> None:
        super().__exit__(exception_type, *args)
        for (_, exchange), original in zip(self.exchanges, self.originals, strict=True):
            exchange(original)
        if exception_type is None:
            for variable, value in self.updates.values():
                variable.assign(value)
            if self.add_loss_outside is not None and self.losses:
                self.add_loss_outside(self.losses)


def follow_into_deferred_calls(layer: keras.layers.Layer) -> None:
    """Makes a layer read replaced variables in a body that runs later or as its own program.

    Rematerialization runs the body again after the scope is left. On TensorFlow, it differentiates
    the body only in arguments and variables, so the tensors become arguments of the body. A
    `call` that is a `tf.function` is traced again in each scope.
    """
    if is_rematerialized(layer):
        layer.rematerialized_call = functools.partial(_rematerialized_call, layer)
    call = call_traced_anew(layer)
    if call is not None:
        layer.call = call


def _rematerialized_call(
    layer: keras.layers.Layer, body: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    scope = get_stateless_scope()
    rematerialize = functools.partial(type(layer).rematerialized_call, layer)
    if not isinstance(scope, Substitution):
        return rematerialize(body, *args, **kwargs)
    tensors = [scope.state_mapping[variable] for variable in scope.replaced]

    # The signature is not the body's, so `functools.wraps` would state a wrong one.
    def resumed(*args: Any, **kwargs: Any) -> Any:
        with scope.resumed(args[: len(tensors)]):
            return body(*args[len(tensors) :], **kwargs)

    return functools.partial(rematerialize(resumed, *args, **kwargs), *tensors)
