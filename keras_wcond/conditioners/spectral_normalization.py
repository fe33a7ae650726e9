from typing import Any

from keras_wcond.arguments import positive_integer
from keras_wcond.conditioners.multiplication import Multiplication
from keras_wcond.conditioners.registry import register
from keras_wcond.linalg.arrays import Tensor
from keras_wcond.linalg.gram_iteration import are_tall, bounded, wide
from keras_wcond.linalg.norms import scaled_by_maximum, with_zero_rows_fixed


@register
class SpectralNormalization(Multiplication):
    """Divides the kernel's matrix by an upper bound of its largest singular value.

    `Ŵ = W / σ̂,  σ_max ≤ σ̂ ≤ σ_max · rank^(2^-(iterations + 1))`

    The bound comes from Gram iteration, `G ← GᵀG`, which squares the singular values until
    the largest outweighs the others. The bound is `σ̂ = ‖G‖_F^(2^-iterations)`, and G is
    rescaled in each iteration so that nothing overflows. The bound depends on the kernel alone,
    unlike power iteration, which keeps a vector between steps. The gradient passes through the
    bound. The method changes the scale of the kernel and not its condition number.

    For random 512 × 512 matrices, σ̂ is above σ_max by about 5 % with 4 iterations, 0.3 % with 6
    and 0.01 % with 8. A zero row stays zero and has a zero gradient. A matrix with a non-finite
    entry becomes NaN.

    Args:
        iterations: Positive integer. The number of Gram iterations. Each of them is a product of
            square matrices of the size of the matrix's smaller dimension. Defaults to `6`.
        differentiate_multiplier: Boolean. Whether the gradient passes through the bound.
            Otherwise it is a constant of the gradient. Defaults to `True`.

    Examples:
        >>> kernel = np.diag([4.0, 2.0]).astype("float32")
        >>> print(keras.ops.convert_to_numpy(SpectralNormalization()(kernel)))
        [[1.  0. ]
         [0.  0.5]]

    Reference:

    - Miyato et al., *Spectral Normalization for Generative Adversarial Networks*, ICLR 2018
    - Delattre et al., *Efficient Bound of Lipschitz Constant for Convolutional Layers by
      Gram Iteration*, ICML 2023
    """

    works_on_arrays = True
    changes = "scale"

    def __init__(self, iterations: int = 6, differentiate_multiplier: bool = True) -> None:
        super().__init__(differentiate_multiplier)
        self.iterations = positive_integer("iterations", iterations)

    def condition(self, matrices: Tensor) -> Tensor:
        # The result does not depend on the scale of a matrix, so that no gradient is lost here.
        scaled, is_zero = scaled_by_maximum(with_zero_rows_fixed(matrices), axis=(1, 2))
        matrix = wide(self.multiplier(scaled), are_tall(scaled))
        return scaled * bounded(matrix, is_zero, self.iterations).inverse

    def get_config(self) -> dict[str, Any]:
        return {"iterations": self.iterations, **super().get_config()}
