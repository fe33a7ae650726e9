from typing import Any

from keras_wcond.arguments import positive_integer
from keras_wcond.conditioners.conditioner import Conditioner
from keras_wcond.conditioners.registry import register
from keras_wcond.linalg.gram_iteration import bounded, wide
from keras_wcond.linalg.norms import scaled_by_maximum, with_zero_rows_fixed


@register
class SpectralNormalization(Conditioner):
    """Divides the kernel's matrix by (an upper bound of) its largest singular value.

    `Ŵ = W / σ̂,  σ_max ≤ σ̂ ≤ σ_max · rank^(2^-(iterations + 1))`

    The bound comes from Gram iteration, `G ← GᵀG`, which squares the singular values until
    the largest outweighs the others: `σ̂ = ‖G‖_F^(2^-iterations)`, with G rescaled on the
    way so that nothing overflows. It is a function of the kernel alone, without a vector
    kept from step to step as power iteration has it, and the gradient passes through it.
    The condition number is that of the kernel: this is a method of scale.

    For random matrices of 512 × 512, σ̂ is about 5 % above σ_max with 4 iterations, some
    0.3 % with 6 and 0.01 % with 8. A zero row stays zero, with a zero gradient.

    Args:
        iterations: Integer. How often the Gram matrix is taken, each time a product of
            square matrices as large as the smaller side of the kernel's.

    Example:

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

    def __init__(self, iterations: int = 6):
        self.iterations = positive_integer("iterations", iterations)

    def condition(self, matrices: Any) -> Any:
        # The result does not depend on the scale of a matrix: no gradient is lost by this.
        scaled, is_zero = scaled_by_maximum(with_zero_rows_fixed(matrices), axis=(1, 2))
        return scaled * bounded(wide(scaled)[0], is_zero, self.iterations).inverse

    def get_config(self) -> dict[str, Any]:
        return {"iterations": self.iterations}
