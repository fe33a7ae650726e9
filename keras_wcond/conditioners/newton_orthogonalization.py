from typing import Any

from keras_wcond.arguments import positive_integer
from keras_wcond.conditioners.registry import register
from keras_wcond.conditioners.singular_value_polynomial import SingularValuePolynomial

# One iteration maps a singular value s to s · (1.5 - 0.5 s²).
STEP = (1.5, -0.5)


@register
class NewtonOrthogonalization(SingularValuePolynomial):
    """Moves all singular values of the kernel's matrix towards 1, by Newton's iteration.

    With enough iterations the rows (or the columns, if there are fewer) are orthonormal, and the
    condition number is 1. With fewer iterations, more of the spectrum remains to be learned.

    `X₀ = Z / σ̂,  X ← 1.5 X - 0.5 (X Xᵀ) X`

    Z is W, without the means of its rows if `center`, and σ̂ is an upper bound of its largest
    singular value, the smaller of `‖G²‖_F^¼` and `‖G²‖_∞^¼`. G is `Z Zᵀ`, or `Zᵀ Z` if Z has no
    more columns than rows. Each iteration maps a singular value s to 1.5 s - 0.5 s³, which
    multiplies small values by 1.5 and leaves values near 1 unchanged. In exact arithmetic this is
    the iteration `B ← 1.5 B - 0.5 B³S`, `X = B Z`, of the reference without its ε and with a
    tighter bound. It does not diverge. Products have the size of the matrix's smaller dimension.

    A zero row stays zero and has a zero gradient. With `center`, so does a row of equal entries.
    A matrix with a non-finite entry becomes NaN. Centering reduces the rank of a matrix with at
    least as many rows as columns by one, and turns a matrix with one column into zero. After
    about 40 iterations, singular values at the level of rounding noise (1e-7 of the largest)
    also reach 1.

    Args:
        iterations: Positive integer. The number of iterations. Defaults to `5`.
        center: Boolean. Whether to subtract the mean of each row first. Defaults to `True`.
        differentiate_multiplier: Boolean. Whether the gradient passes through the matrix by
            which the iterations multiply Z. Otherwise that matrix is a constant of the gradient.
            Defaults to `False`.

    Examples:
        >>> kernel = np.array([[2, 1], [0, 1]], "float32")
        >>> newton = NewtonOrthogonalization(iterations=10, center=False)
        >>> conditioned = newton(kernel)
        >>> gram = keras.ops.matmul(keras.ops.transpose(conditioned), conditioned)
        >>> print(abs(keras.ops.convert_to_numpy(gram).round(3)))
        [[1. 0.]
         [0. 1.]]

    Reference:

    - [Huang et al., *Controllable Orthogonalization in Training DNNs*, 2020](
      https://arxiv.org/abs/2004.00917)
    """

    def __init__(
        self, iterations: int = 5, center: bool = True, differentiate_multiplier: bool = False
    ) -> None:
        super().__init__(center, differentiate_multiplier)
        self.iterations = positive_integer("iterations", iterations)

    @property
    def polynomials(self) -> tuple[tuple[float, ...], ...]:
        return (STEP,) * self.iterations

    def get_config(self) -> dict[str, Any]:
        return {"iterations": self.iterations, **super().get_config()}
