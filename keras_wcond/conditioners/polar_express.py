from typing import Any

from keras_wcond.arguments import number_between, positive_integer
from keras_wcond.conditioners.registry import register
from keras_wcond.conditioners.singular_value_polynomial import SingularValuePolynomial
from keras_wcond.linalg.minimax import LIMITS, minimax_polynomials


@register
class PolarExpress(SingularValuePolynomial):
    """Moves all singular values of the kernel's matrix towards 1, by minimax polynomials.

    A few steps move them as far as many iterations of `NewtonOrthogonalization`, with fewer
    matrix products.

    `X₀ = Z / σ̂,  X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X`

    Z is W, without the means of its rows if `center`, and σ̂ is an upper bound of its largest
    singular value, the smaller of `‖G²‖_F^¼` and `‖G²‖_∞^¼`. G is `Z Zᵀ`, or `Zᵀ Z` if Z has no
    more columns than rows. The odd polynomial of the first step is the one that differs least from
    1 on `[lower, 1]`. That of each further step is the best one for the interval that its
    predecessor maps to. The coefficients are computed for any `lower`. Below 0.02, the intervals
    of the first steps are wider by 0.1 %, so that rounding errors stay bounded. For 0.05 and
    degree 5 the first two steps are (6.752, -18.351, 13.263) and (2.538, -1.875, 0.441). A
    singular value far below `lower · σ̂` is multiplied by the product of the a.

    All products but the last have the size of the matrix's smaller dimension. A zero row stays
    zero and has a zero gradient. With `center`, so does a row of equal entries. A matrix with a
    non-finite entry becomes NaN.

    Args:
        steps: Positive integer. The number of polynomials. Defaults to `2`.
        lower: Float above 0 and below 1. The lower end of the interval of singular values,
            divided by σ̂, that the polynomials bring close to 1. Defaults to `0.05`.
        degree: 3 or 5. The degree of each polynomial. Defaults to `5`.
        center: Boolean. Whether to subtract the mean of each row first. Defaults to `False`.
        differentiate_multiplier: Boolean. Whether the gradient passes through the matrix by
            which the steps multiply Z. Otherwise that matrix is a constant of the gradient.
            Defaults to `False`.

    Examples:
        >>> kernel = np.diag([1.0, 0.1]).astype("float32")
        >>> print(keras.ops.convert_to_numpy(PolarExpress(steps=3)(kernel)).round(2))
        [[1.01 0.  ]
         [0.   1.  ]]

    Reference:

    - [Amsel et al., *The Polar Express*, 2025](https://arxiv.org/abs/2505.16932)
    """

    def __init__(
        self,
        steps: int = 2,
        lower: float = 0.05,
        degree: int = 5,
        center: bool = False,
        differentiate_multiplier: bool = False,
    ) -> None:
        super().__init__(center, differentiate_multiplier)
        self.steps = positive_integer("steps", steps)
        self.lower = number_between("lower", lower, 0.0, 1.0)
        # A list or an array cannot be looked up in a dict.
        if not isinstance(degree, int) or degree not in LIMITS:
            raise ValueError(f"Expected `degree` to be 3 or 5. Received: degree={degree!r}")
        self.degree = degree

    @property
    def polynomials(self) -> tuple[tuple[float, ...], ...]:
        return minimax_polynomials(self.steps, self.lower, self.degree)

    def get_config(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "lower": self.lower,
            "degree": self.degree,
            **super().get_config(),
        }
