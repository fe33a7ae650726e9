import math
from typing import Any

import keras
from keras import ops

from keras_wcond.conditioners.conditioner import Conditioner
from keras_wcond.norms import scaled_by_maximum


@keras.saving.register_keras_serializable(package="keras_wcond")
class SpectralNormalization(Conditioner):
    """Divides the kernel's matrix by (an upper bound of) its largest singular value.

    `Ŵ = W / σ̂,  σ_max ≤ σ̂ ≤ σ_max · rank^(2^-(iterations + 1))`

    The bound comes from Gram iteration, `G ← GᵀG`, which squares the singular values until
    the largest outweighs the others: `σ̂ = ‖G‖_F^(2^-iterations)`, with G rescaled on the
    way so that nothing overflows. It is a function of the kernel alone, without a vector
    kept from step to step as power iteration has it, and the gradient passes through it.
    The condition number is that of the kernel: this is a method of scale.

    For random matrices of 512 × 512, σ̂ is about 5 % above σ_max with 4 iterations, 0.3 %
    with 6 and 0.004 % with 8. A zero matrix stays zero, with a zero gradient.

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

    def __init__(self, iterations: int = 6):
        if not isinstance(iterations, int) or isinstance(iterations, bool) or iterations < 1:
            raise ValueError(
                "Expected `iterations` to be a positive integer. Received: "
                f"iterations={iterations!r}"
            )
        self.iterations = iterations

    def condition(self, matrices: Any) -> Any:
        # The result does not depend on the scale of a matrix: no gradient is lost by this.
        scaled, is_zero = scaled_by_maximum(matrices, axis=(1, 2))
        return scaled * ops.where(is_zero, 0.0, ops.exp(-self._log_bound(scaled, is_zero)))

    def get_config(self) -> dict[str, Any]:
        return {"iterations": self.iterations}

    def _log_bound(self, gram, is_zero):
        """Ln σ̂ of each matrix, with shape `(matrices, 1, 1)`; finite for zero matrices."""
        is_wide = gram.shape[1] < gram.shape[2]
        gram = ops.transpose(gram, (0, 2, 1)) if is_wide else gram
        log_scale = 0.0
        for _ in range(self.iterations):
            log_norm = _log_frobenius_norm(gram, is_zero)
            gram = gram * ops.exp(-log_norm)
            log_scale = 2.0 * (log_scale + log_norm)
            gram = ops.matmul(ops.transpose(gram, (0, 2, 1)), gram)
        return math.ldexp(1.0, -self.iterations) * (_log_frobenius_norm(gram, is_zero) + log_scale)


def _log_frobenius_norm(matrices, is_zero):
    squares = ops.sum(ops.square(matrices), axis=(1, 2), keepdims=True)
    return 0.5 * ops.log(ops.where(is_zero, 1.0, squares))
