from typing import Any

from keras_wcond.arguments import positive_integer
from keras_wcond.conditioners.conditioner import Conditioner
from keras_wcond.conditioners.registry import register
from keras_wcond.linalg.arrays import Tensor, namespace
from keras_wcond.linalg.gram_iteration import bounded, transposed, wide
from keras_wcond.linalg.held_constant import held_constant
from keras_wcond.linalg.norms import divided_by_maximum, with_zero_rows_fixed

# The coefficients of q by its degree, in powers of s², lowest first.
COEFFICIENTS = {
    1: (1.507, -0.507),
    2: (2.083, -1.643, 0.560),
    3: (2.909, -4.649, 4.023, -1.283),
    4: (3.625, -9.261, 14.097, -10.351, 2.890),
}


@register
class PolynomialPreconditioner(Conditioner):
    """Raises the small singular values of the kernel's matrix by a fixed polynomial.

    The method is milder and cheaper than `NewtonOrthogonalization`. It divides the condition
    number by at most the first coefficient of q. It keeps the largest singular value, and so the
    scale of the kernel, within 3 %.

    `Ŵ = σ̂ · p(W / σ̂),  p(s) = s · q(s²)` on the singular values

    σ̂ is the bound of the largest singular value from `SpectralNormalization`, with 6 Gram
    iterations. The gradient passes through the division by σ̂ and not through the
    multiplication with σ̂. The polynomials q were fitted in the reference so that p is close to
    1 on [0.1, 1]:

    | degree | q(t)                                                  | κ = 10 becomes |
    | ------ | ----------------------------------------------------- | -------------- |
    | 1      | 1.507 - 0.507 t                                       | 6.66           |
    | 2      | 2.083 - 1.643 t + 0.560 t²                            | 4.89           |
    | 3      | 2.909 - 4.649 t + 4.023 t² - 1.283 t³                 | 3.56           |
    | 4      | 3.625 - 9.261 t + 14.097 t² - 10.351 t³ + 2.890 t⁴    | 2.89           |

    Products have the size of the matrix's smaller dimension. A zero row stays zero and has a
    zero gradient. A matrix with a non-finite entry becomes NaN.

    Args:
        degree: 1, 2, 3 or 4. The degree of the polynomial q. Defaults to `4`.

    Example:

    >>> kernel = np.diag([1.0, 0.1]).astype("float32")
    >>> print(keras.ops.convert_to_numpy(PolynomialPreconditioner()(kernel)).round(2))
    [[1.   0.  ]
     [0.   0.35]]

    Reference:

    - [arXiv 2606.06470](https://arxiv.org/abs/2606.06470), the PC layer
    """

    works_on_arrays = True

    def __init__(self, degree: int = 4) -> None:
        if positive_integer("degree", degree) not in COEFFICIENTS:
            raise ValueError(
                f"Expected `degree` to be 1, 2, 3 or 4. Received: degree={degree!r}. Methods in "
                "sequence go further: `conditioners.Sequential`."
            )
        self.degree = degree

    def condition(self, matrices: Tensor) -> Tensor:
        ops = namespace(matrices)
        # Only the last multiplication depends on the scale of a matrix.
        scaled, maximum, is_zero = divided_by_maximum(with_zero_rows_fixed(matrices), axis=(1, 2))
        x, is_tall = wide(scaled)
        found = bounded(x, is_zero, iterations=6)
        x = self._polynomial(found.gram, found.gram_squared) @ (x * found.inverse)
        bound = maximum / ops.where(is_zero, 1.0, found.inverse)
        return held_constant(bound) * (transposed(x) if is_tall else x)

    def get_config(self) -> dict[str, Any]:
        return {"degree": self.degree}

    def _polynomial(self, gram: Tensor, squared: Tensor) -> Tensor:
        """The values of q at the Gram matrices, with at most one matrix product."""
        ops = namespace(gram)
        identity = ops.eye(gram.shape[1], dtype=gram.dtype)
        c = [*COEFFICIENTS[self.degree], 0.0, 0.0, 0.0][:5]
        value = c[0] * identity + c[1] * gram
        if self.degree == 2:
            return value + c[2] * squared
        if self.degree > 2:
            value = value + squared @ (c[2] * identity + c[3] * gram + c[4] * squared)
        return value
