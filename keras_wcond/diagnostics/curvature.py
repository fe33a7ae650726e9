"""How curved the loss is: the extreme eigenvalues of its Hessian, by Lanczos' method."""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_wcond.arguments import positive_integer
from keras_wcond.backends import gauss_newton_product, hessian_product
from keras_wcond.diagnostics.gradient_check import require_gradients_of_values
from keras_wcond.diagnostics.lanczos import lanczos
from keras_wcond.diagnostics.loss_functions import LossOnData
from keras_wcond.diagnostics.progress import tracked


@dataclasses.dataclass(frozen=True)
class LossCurvature:
    """What `loss_curvature()` found.

    Attributes:
        largest_eigenvalue: Float.
        smallest_eigenvalue: Float, negative where the loss curves downwards somewhere.
        largest_error: Float. The largest eigenvalue is this close to one of the matrix, by
            the residual; usually much closer. Rounding in the products, some 1e-6 of the
            norm, comes on top.
        smallest_error: The same of the smallest.
        norm: Float, the largest magnitude of the two: the 2-norm of the matrix.
        condition_number: Float, the norm over the smallest magnitude of an eigenvalue: by
            the error bounds, at least this. It is exact, but for rounding, where
            `iterations` is at least the dimension of the matrix, the number of trainable
            weights. Where it is less, this is a bound that grows with the iterations and may
            lie far below: compare it at one and the same number of them only.
        iterations: Integer, the products that were taken.
        converged: Boolean, whether both errors are within the tolerance.
        matrix: `"hessian"` or `"gauss_newton"`.
    """

    largest_eigenvalue: float
    smallest_eigenvalue: float
    largest_error: float
    smallest_error: float
    norm: float
    condition_number: float
    iterations: int
    converged: bool
    matrix: str


def loss_curvature(
    model: keras.Model,
    x: Any,
    y: Any,
    loss: Any = None,
    matrix: str = "hessian",
    iterations: int = 100,
    tolerance: float = 1e-3,
    batch_size: int | None = None,
    seed: int = 0,
) -> LossCurvature:
    """The largest and the smallest eigenvalue of the Hessian of a model's loss.

    The paper's claim is that conditioned weights make this matrix better conditioned. It is
    that of the mean loss on `x` and `y` in all trainable weights, raw kernels where layers
    are conditioned, and is never formed: Lanczos' method takes its products with vectors.
    Each costs two to three gradients on all the data, and leaves a float64 vector as long
    as all trainable weights on the host.

    `H = ∇²L(w)`, or `G = Jᵀ (∇²ℓ) J`, J the Jacobian of the outputs in the weights

    The Gauss-Newton matrix G is what is left of H without the curvature of the network
    itself. It has no negative eigenvalues for the usual losses, if these take the outputs
    as they are, logits and not probabilities.

    The model runs as in inference, and penalties of regularizers are not part of the loss. The
    derivatives go through what a method of the package holds constant in training; a method of
    your own that stops a part of its gradient is refused.

    Args:
        model: A built model with one output.
        x: Array of inputs, or a structure of arrays.
        y: Array of targets.
        loss: A Keras loss, by name or instance, or a function of `(y_true, y_pred)`. None
            for that which the model was compiled with.
        matrix: `"hessian"` or `"gauss_newton"`.
        iterations: Integer, the products that are taken at most.
        tolerance: Float. It stops where both error bounds are within this part of their
            eigenvalue, or within 1e-3 of this part of the norm; where the model has no more
            trainable weights than `iterations`, it goes on to their number.
        batch_size: How many samples are looked at at a time, or None for all. The result is
            the same for losses that are means over samples.
        seed: Integer, of the random vector that Lanczos' method starts from.

    Returns:
        A `LossCurvature`.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> x, y = np.array([[1.0], [3.0]]), np.zeros((2, 1))
    >>> curvature = loss_curvature(model, x, y, "mse")  # of the mean of (w x)², 2 E[x²]
    >>> round(curvature.largest_eigenvalue, 3)
    10.0

    Reference:

    - Lanczos, *An iteration method for the solution of the eigenvalue problem*, 1950
    - Pearlmutter, *Fast exact multiplication by the Hessian*, 1994
    """
    data = LossOnData.of(model, x, y, loss, batch_size)
    positive_integer("iterations", iterations)
    if not 0.0 < tolerance < 1.0:
        raise ValueError(f"Expected `tolerance` in (0, 1). Received: tolerance={tolerance}")
    if matrix == "hessian":
        multiply = hessian_product(data.loss_of_values)
    elif matrix == "gauss_newton":
        multiply = gauss_newton_product(data.detached_outputs, data.loss_of_outputs)
    else:
        raise ValueError(
            f"Expected `matrix` to be 'hessian' or 'gauss_newton'. Received: matrix={matrix!r}"
        )
    require_gradients_of_values(model)
    values = data.values
    size = sum(int(np.prod(value.shape)) for value in values)

    def product(vector):
        return data.derivative(multiply, values, data.split(vector))

    steps = lanczos(product, size, iterations, seed)
    for step, (ritz, errors) in enumerate(
        tracked(steps, "Lanczos", min(iterations, size)), start=1
    ):
        result = curvature_of(ritz, errors, step, tolerance, matrix)
        # Otherwise it costs little to go on to the end, for the condition number.
        if result.converged and size > iterations:
            break
    return result


def curvature_of(ritz, errors, step, tolerance, matrix):
    """What Ritz values and the bounds of their errors say of the matrix."""
    norm = float(max(abs(ritz[0]), abs(ritz[-1])))
    allowed = tolerance * np.maximum(np.abs(ritz), 1e-3 * norm)
    # An eigenvalue lies within the error of every Ritz value, so none is known to be smaller.
    smallest_magnitude = min(norm, float(np.min(np.abs(ritz) + errors)))
    return LossCurvature(
        largest_eigenvalue=float(ritz[-1]),
        smallest_eigenvalue=float(ritz[0]),
        largest_error=float(errors[-1]),
        smallest_error=float(errors[0]),
        norm=norm,
        condition_number=norm / smallest_magnitude if smallest_magnitude > 0.0 else np.inf,
        iterations=step,
        converged=bool(errors[0] <= allowed[0] and errors[-1] <= allowed[-1]),
        matrix=matrix,
    )
