"""The base class of the methods that only scale rows and columns."""

from keras_wcond.conditioners.multiplication import Multiplication
from keras_wcond.kernels.layout import KernelLayout
from keras_wcond.linalg.arrays import Tensor


class Scaling(Multiplication):
    """Base class of the methods that divide rows, columns or whole matrices by norms.

    A subclass implements `scale()` for any axes. The same function then scales a stack of
    matrices and a kernel, without a conversion of the kernel to matrices and back.

    Attributes:
        is_by_row: Boolean. Whether the scaling of a row depends on that row only. Defaults to
            `False`.
    """

    is_by_row: bool = False

    def scale(self, x: Tensor, rows: tuple[int, ...], columns: tuple[int, ...]) -> Tensor:
        """The scaled tensor.

        Args:
            x: Tensor or NumPy array in float32 or wider.
            rows: Tuple of integers. The axes that index rows.
            columns: Tuple of integers. The axes that index columns, along which a row runs.

        Returns:
            Tensor or array of the same shape and dtype.

        Raises:
            NotImplementedError: If the subclass does not implement it.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `scale()`.")

    def condition(self, matrices: Tensor) -> Tensor:
        return self.scale(matrices, (1,), (2,))

    def condition_kernel(self, kernel: Tensor, layout: KernelLayout) -> Tensor:
        if not (self.is_by_row or layout.is_one_matrix):
            return super().condition_kernel(kernel, layout)
        return self.scale(kernel, *layout.axes(tuple(kernel.shape)))
