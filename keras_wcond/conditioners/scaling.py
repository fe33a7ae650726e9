from typing import Any

from keras_wcond.conditioners.conditioner import Conditioner
from keras_wcond.kernels.layout import KernelLayout


class Scaling(Conditioner):
    """Base class of the methods that divide rows, columns or the whole by norms.

    A subclass implements `scale()` for any axes. That serves a stack of matrices, and a kernel
    where it lies, which saves turning it into matrices and back.

    Attributes:
        is_by_row: Boolean. Whether each row is scaled by itself, whatever matrix it is part of.
    """

    is_by_row: bool = False

    def scale(self, x: Any, rows: tuple[int, ...], columns: tuple[int, ...]) -> Any:
        """The scaled tensor.

        Args:
            x: Tensor or NumPy array in float32 or wider.
            rows: The axes that index rows.
            columns: The axes that index columns, along which a row runs.

        Returns:
            Tensor or array of the same shape and dtype.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `scale()`.")

    def condition(self, matrices: Any) -> Any:
        return self.scale(matrices, (1,), (2,))

    def condition_kernel(self, kernel: Any, layout: KernelLayout) -> Any:
        if not (self.is_by_row or layout.is_one_matrix):
            return super().condition_kernel(kernel, layout)
        return self.scale(kernel, *layout.axes(tuple(kernel.shape)))
