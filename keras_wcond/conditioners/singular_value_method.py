"""The base class of the methods that change the singular values of a matrix."""

from typing import Any

from keras_wcond.arguments import boolean
from keras_wcond.conditioners.multiplication import Multiplication
from keras_wcond.kernels.layout import KernelLayout
from keras_wcond.linalg.arrays import Tensor
from keras_wcond.linalg.norms import centered, divided_by_maximum, scaled_matrices


class SingularValueMethod(Multiplication):
    """Base class of the methods that change singular values, and keep singular vectors.

    Such a method does the same to the transpose of a matrix, except for the means and the zeros
    of rows. A subclass implements `condition_along()`.

    Args:
        center: Boolean. Whether to subtract the mean of each row first.
        differentiate_multiplier: Boolean. As of `Multiplication`.
    """

    works_on_arrays = True

    def __init__(self, center: bool, differentiate_multiplier: bool) -> None:
        super().__init__(differentiate_multiplier)
        self.center = boolean("center", center)

    def condition(self, matrices: Tensor) -> Tensor:
        return self.condition_along(matrices, column_axis=2)

    def condition_kernel(self, kernel: Tensor, layout: KernelLayout) -> Tensor:
        # On CPUs, XLA takes long to copy a kernel in another order of its axes.
        columns_first = layout.has_columns_first(kernel.shape)
        matrices = layout.to_matrices(kernel, columns_first)
        conditioned = self.condition_along(matrices, column_axis=1 if columns_first else 2)
        return layout.from_matrices(conditioned, kernel.shape, columns_first)

    def condition_along(self, matrices: Tensor, column_axis: int) -> Tensor:
        """The conditioned matrices. The transposes of matrices become those of the results.

        Args:
            matrices: Tensor or array of shape `(matrices, rows, columns)`, or of shape
                `(matrices, columns, rows)`.
            column_axis: 2 or 1. The axis along which a row runs.

        Returns:
            Tensor or array of the same shape and dtype.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `condition_along()`.")

    def scaled(self, matrices: Tensor, column_axis: int) -> tuple[Tensor, Tensor, Tensor]:
        """Z divided by its largest magnitude, that magnitude, and whether it is zero."""
        z, size, is_zero = scaled_matrices(matrices, column_axis)
        if self.center:
            z, factor, is_zero = divided_by_maximum(centered(z, column_axis), axis=(1, 2))
            size = size * factor
        return z, size, is_zero

    def get_config(self) -> dict[str, Any]:
        return {"center": self.center, **super().get_config()}
