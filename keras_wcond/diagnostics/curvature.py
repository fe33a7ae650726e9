"""The curvature of the loss: the extreme eigenvalues of its Hessian, by Lanczos' method."""

import dataclasses
from typing import Any, Literal

import keras
import numpy as np

from keras_wcond.arguments import positive_integer
from keras_wcond.backends import gauss_newton_product, hessian_product
from keras_wcond.diagnostics.gradient_check import require_gradients_of_values
from keras_wcond.diagnostics.lanczos import lanczos
from keras_wcond.diagnostics.loss_functions import Loss, LossOnData
from keras_wcond.diagnostics.progress import tracked

Matrix = Literal["hessian", "gauss_newton"]


@dataclasses.dataclass(frozen=True)
class LossCurvature:
    """The extreme eigenvalues of a matrix of second derivatives, by `loss_curvature()`.

    The unit of eigenvalues, errors and norm is that of the loss, per squared unit of weights.

    Attributes:
        largest_eigenvalue: Float.
        smallest_eigenvalue: Float, negative if the loss curves downwards in some direction.
        largest_error: Float, a bound from the residual. The matrix has an eigenvalue that is at
            most this far from `largest_eigenvalue`, and usually much nearer. Rounding in the
            products adds an error of about 1e-6 of the norm.
        smallest_error: Float, the same bound for `smallest_eigenvalue`.
        norm: Float, the 2-norm of the matrix, which is the larger magnitude of the two
            eigenvalues.
        condition_number: Float, a lower bound from the error bounds of the norm divided by the
            smallest magnitude of an eigenvalue. It is exact up to rounding if `iterations` is at
            least the dimension of the matrix, which is the number of trainable weights. With
            fewer iterations it may be far too small, and grows with the iterations. Compare it
            only at one number of iterations.
        iterations: Integer, the number of products with the matrix that were computed.
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
    matrix: Matrix


def loss_curvature(
    model: keras.Model,
    x: Any,
    y: Any,
    loss: Loss = None,
    matrix: Matrix = "hessian",
    iterations: int = 100,
    tolerance: float = 1e-3,
    batch_size: int | None = None,
    seed: int = 0,
) -> LossCurvature:
    """The largest and the smallest eigenvalue of the Hessian of a model's loss.

    The paper claims that conditioned weights make this matrix better conditioned. It is the
    Hessian of the mean loss on `x` and `y` in all trainable weights, which are the raw kernels
    where layers are conditioned. The matrix is never formed. Lanczos' method computes its products
    with vectors. Each product costs two to three gradients on all the data, and keeps a float64
    vector as long as all trainable weights on the host.

    `H = ∇²L(w)`, or `G = Jᵀ (∇²ℓ) J`, J the Jacobian of the outputs in the weights

    The Gauss-Newton matrix G is H without the curvature of the network itself. For the usual
    losses it has no negative eigenvalues, if the outputs are logits and not probabilities.

    The model runs as in inference, and penalties of regularizers are not part of the loss. The
    derivatives also include quantities that a method of the package holds constant in training.

    Args:
        model: A built model with one output.
        x: Array of inputs with samples on axis 0, or a structure of such arrays.
        y: Array of targets with samples on axis 0.
        loss: A Keras loss, by name or instance, or a function of `(y_true, y_pred)`. None takes
            the loss that the model was compiled with. Defaults to None.
        matrix: `"hessian"` or `"gauss_newton"`. Defaults to `"hessian"`.
        iterations: Integer, the largest number of products. Defaults to 100.
        tolerance: Float in (0, 1), relative. The iteration stops once each error bound is at most
            `tolerance` of the magnitude of its eigenvalue, or at most `1e-3 · tolerance` of the
            norm. A model with no more trainable weights than `iterations` gets one iteration
            per weight. Defaults to `1e-3`.
        batch_size: Integer, the number of samples per batch, or None for all samples at once. The
            result is the same for losses that are means over samples. Defaults to None.
        seed: Integer, the seed of the random start vector. Defaults to 0.

    Returns:
        A `LossCurvature`.

    Raises:
        ValueError: An argument is out of its range, the model is not built or has no trainable
            weights, no loss is given, a derivative is not finite, or a method of your own stops
            a part of its gradient.

    Examples:
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

    def product(vector: np.ndarray) -> np.ndarray:
        return data.derivative(multiply, values, data.split(vector))

    steps = lanczos(product, size, iterations, seed)
    for step, (ritz, errors) in enumerate(
        tracked(steps, "Lanczos", min(iterations, size)), start=1
    ):
        result = curvature_of(ritz, errors, step, tolerance, matrix)
        # A small matrix costs little to finish, which makes the condition number exact.
        if result.converged and size > iterations:
            break
    return result


def curvature_of(
    ritz: np.ndarray, errors: np.ndarray, step: int, tolerance: float, matrix: Matrix
) -> LossCurvature:
    """The `LossCurvature` that follows from Ritz values and their error bounds."""
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
