"""A check that a wrapped layer reads its conditioned kernels in every call."""

import sys
import types
from collections.abc import Iterable, Sequence
from typing import Any, Self

import keras

from keras_wcond.backends import files_that_run_again, is_tracing_apart
from keras_wcond.layers.base.conditioned_kernel import ConditionedKernel
from keras_wcond.layers.base.substitution import Substitution
from keras_wcond.linalg.arrays import Tensor


class WatchedSubstitution(Substitution):
    """A substitution that records which of the replaced variables were read, and where.

    Attributes:
        unread: The ids of the variables that were not read yet.
        traced: The ids of the variables that were read while TensorFlow traced a function inside
            the layer.
        read_to_run_again: The ids of the variables that were read inside a function that runs its
            body again for the gradient, after the scope is left.
    """

    def __init__(self, replacements: list[tuple[keras.Variable, Tensor]], *args: Any):
        super().__init__(replacements, *args)
        self.unread = set(self.replaced) - {id(variable) for variable, _ in self.exchanges}
        self.traced: set[int] = set()
        self.read_to_run_again: set[int] = set()
        self._entered: types.FrameType | None = None
        self._files: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        super().__enter__()
        self._is_eager = not is_tracing_apart()
        # Found once for each call, not for each variable that is read.
        self._files = files_that_run_again()
        self._entered = sys._getframe(1) if self._files else None
        return self

    def resumed(self, tensors: Iterable[Tensor]) -> Self:
        scope = super().resumed(tensors)
        scope.unread, scope.traced = self.unread, self.traced
        scope.read_to_run_again = self.read_to_run_again
        return scope

    def get_current_value(self, variable: keras.Variable) -> Tensor | None:
        if id(variable) in self.replaced:
            self.unread.discard(id(variable))
            if self._is_eager and is_tracing_apart():
                self.traced.add(id(variable))
            if self._runs_again():
                self.read_to_run_again.add(id(variable))
        return super().get_current_value(variable)

    def __exit__(self, exception_type: type[BaseException] | None, *args: Any) -> None:
        self._entered = None  # A frame keeps all of its variables alive.
        super().__exit__(exception_type, *args)

    def _runs_again(self) -> bool:
        if not self._files:
            return False
        frame: types.FrameType | None = sys._getframe(2)
        while frame is not None and frame is not self._entered:
            if frame.f_code.co_filename in self._files:
                return True
            frame = frame.f_back
        return False


class ReadCheck:
    """Raises if a call of a wrapped layer does not read the conditioned kernels."""

    def __init__(self) -> None:
        self._is_first = True
        self._traced: frozenset[int] = frozenset()

    def require_read(
        self,
        scope: WatchedSubstitution,
        layer: keras.layers.Layer,
        kernels: Sequence[ConditionedKernel],
    ) -> None:
        """Checks a call that has ended.

        Args:
            scope: The scope that the call ran in.
            layer: The wrapped layer.
            kernels: The kernels of the layer that are conditioned.

        Raises:
            ValueError: The call did not read one of the kernels, or read it in a function that
                runs again outside of the scope.
        """
        unread = [kernel.path for kernel in kernels if id(kernel.variable) in scope.unread]
        twice = [k.path for k in kernels if id(k.variable) in scope.read_to_run_again]
        if twice:
            raise ValueError(_runs_again(layer, twice))
        if self._is_first and unread:
            raise ValueError(_unread(layer, unread))
        if self._traced & scope.unread:
            raise ValueError(_compiled(layer, unread))
        self._is_first = False
        self._traced |= scope.traced


def _unread(layer: keras.layers.Layer, paths: Sequence[str]) -> str:
    return (
        "Expected a layer whose call reads the kernels that are conditioned. Received: "
        f"layer.name={layer.name!r} of type {type(layer).__qualname__}, whose first call did not "
        f"read {paths}, so that they were not conditioned. Name the kernels that it does read "
        "with `weights=`. Where it reads these in a function that is compiled by itself, such as "
        "by `jax.jit`, `tf.function` or `keras.remat`, call it uncompiled inside the layer."
    )


def _compiled(layer: keras.layers.Layer, paths: Sequence[str]) -> str:
    return (
        "Expected a layer that reads its kernels in every call. Received: "
        f"layer.name={layer.name!r}, which did not read {paths}: a function that `tf.function` "
        "compiled keeps those of the call it was traced in. Leave `tf.function` out inside the "
        "layer; `fit()` compiles the whole model."
    )


def _runs_again(layer: keras.layers.Layer, paths: Sequence[str]) -> str:
    return (
        "Expected a layer whose `call` runs once. Received: "
        f"layer.name={layer.name!r}, which reads {paths} inside a function such as "
        "`torch.utils.checkpoint.checkpoint`, `tf.recompute_grad` or `keras.remat`. It runs again "
        "for the gradient, and reads the raw kernels then. Leave it out inside the layer, and "
        "rematerialize the whole: make the layer in a `keras.RematScope`, or call the "
        "`Conditioned` layer inside that function."
    )
