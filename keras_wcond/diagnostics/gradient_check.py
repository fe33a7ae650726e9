"""A check that the gradient of a user's own method is the gradient of its value."""

import keras
import numpy as np
from keras import ops

from keras_wcond import conditioners
from keras_wcond.backends import gradient
from keras_wcond.diagnostics.model_kernels import conditioner_of, model_kernels
from keras_wcond.kernels.search import Kernel
from keras_wcond.layers.base.survey import conditioned_kernel, conditioned_layers
from keras_wcond.linalg.arrays import Tensor
from keras_wcond.linalg.held_constant import exact_derivatives

# The relative change of each entry of a kernel, up to a small factor. Differences in float32 are
# then accurate to about 1 %.
_STEP = 1e-3
_TOLERANCE = 0.05
_DIRECTIONS = 4


def require_gradients_of_values(model: keras.layers.Layer) -> None:
    """Requires that no conditioner of the user's own stops a part of its gradient.

    Second derivatives would otherwise be the derivatives of no function. Derivatives along random
    directions are compared with central differences.

    Args:
        model: A built model or layer.

    Raises:
        ValueError: A derivative differs from the differences by more than 5 %.
    """
    if all(_is_shipped(layer.kernel_conditioner) for layer in conditioned_layers(model)):
        return
    for kernel in model_kernels(model):
        conditioner = conditioner_of(kernel)
        if conditioner is None or _is_shipped(conditioner):
            continue
        with exact_derivatives():
            agrees = _agrees(kernel, conditioner)
        if not agrees:
            raise ValueError(
                "Expected conditioners whose gradient is that of their value, since second "
                "derivatives are those of no function otherwise. Received: "
                f"{conditioner!r} for {kernel.path!r}, whose derivatives differ from "
                "differences of its values. Does its `condition` call `ops.stop_gradient`?"
            )


def _is_shipped(conditioner: conditioners.Conditioner | None) -> bool:
    if isinstance(conditioner, conditioners.Sequential):
        return all(map(_is_shipped, conditioner.conditioners))
    return type(conditioner) in conditioners.METHODS.values()


def _agrees(found: Kernel, conditioner: conditioners.Conditioner) -> bool:
    kernel = _array(conditioned_kernel(found).raw())
    rng = np.random.default_rng(0)

    def condition(value: Tensor) -> Tensor:
        return conditioner(ops.convert_to_tensor(value, "float32"), found.layout)

    # One function serves all directions, so that it is compiled once.
    derivative = gradient(lambda values, weights: ops.sum(condition(values[0]) * weights))
    for _ in range(_DIRECTIONS):
        # In proportion to each entry, since rows may be of very different norms.
        direction = kernel * rng.normal(size=kernel.shape)
        weights = rng.normal(size=kernel.shape)
        after, before = (_array(condition(kernel + s * direction)) for s in (_STEP, -_STEP))
        change = (after - before) / (2.0 * _STEP)
        (product,) = derivative(
            [ops.convert_to_tensor(kernel, "float32")], ops.convert_to_tensor(weights, "float32")
        )
        difference = np.sum(weights * change) - np.sum(direction * _array(product))
        # A sum of the change with random weights is about as large as the norm of the change.
        if abs(difference) > _TOLERANCE * np.linalg.norm(change):
            return False
    return True


def _array(x: Tensor) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(x), "float64")
