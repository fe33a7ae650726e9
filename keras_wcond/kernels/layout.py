"""Kernels as matrices with one row per output unit.

This module is the only one that turns a kernel into matrices and back.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from keras import ops

from keras_wcond.arguments import positive_integer
from keras_wcond.linalg.arrays import Tensor

# Sizes of axes, or numbers of axes.
Shape: TypeAlias = tuple[int, ...]


@dataclasses.dataclass(frozen=True, init=False)
class KernelLayout:
    """The reading of a kernel as one matrix or a stack of matrices, with one row per output unit.

    Args:
        unit_axes: Integer or sequence of integers. The kernel's axes that index output
            units. All other axes together make up the columns. Defaults to `-1`.
        matrix_axes: Integer or sequence of integers, a subset of `unit_axes`. The axes that
            index whole matrices instead of rows, such as the channels of a `DepthwiseConv2D`
            layer. Defaults to `()`.
        blocks: Integer. The number of equal, consecutive slices of the last unit axis, each of
            which is a matrix, such as the groups of a convolution or the gates of an LSTM.
            Defaults to `1`.

    Raises:
        TypeError: If `unit_axes` or `matrix_axes` is not made of integers.
        ValueError: If `matrix_axes` is not a subset of `unit_axes`, or if `blocks` is not a
            positive integer.

    Examples:
        >>> KernelLayout().to_matrices(np.ones((3, 4))).shape  # a Dense kernel
        (1, 4, 3)
        >>> KernelLayout(blocks=2).to_matrices(np.ones((3, 3, 8, 6))).shape  # two groups
        (2, 3, 72)
    """

    unit_axes: Shape
    matrix_axes: Shape
    blocks: int

    def __init__(
        self,
        unit_axes: int | Sequence[int] = -1,
        matrix_axes: int | Sequence[int] = (),
        blocks: int = 1,
    ) -> None:
        # This bypasses frozen, as the generated constructor does.
        object.__setattr__(self, "unit_axes", _axes("unit_axes", unit_axes))
        object.__setattr__(self, "matrix_axes", _axes("matrix_axes", matrix_axes))
        object.__setattr__(self, "blocks", blocks)
        if not set(self.matrix_axes) <= set(self.unit_axes):
            raise ValueError(
                "Expected every one of `matrix_axes` to be one of `unit_axes`. Received: "
                f"matrix_axes={self.matrix_axes}, unit_axes={self.unit_axes}"
            )
        positive_integer("blocks", blocks)

    @classmethod
    def of(cls, unit_axes: "int | Sequence[int] | KernelLayout") -> "KernelLayout":
        """The given layout, or a layout with the given unit axes."""
        return unit_axes if isinstance(unit_axes, KernelLayout) else cls(unit_axes)

    def of_stack(self) -> "KernelLayout":
        """The layout of kernels of this layout that are stacked along a new first axis."""
        unit_axes, matrix_axes = (
            (0, *(axis + 1 if axis >= 0 else axis for axis in axes))
            for axes in (self.unit_axes, self.matrix_axes)
        )
        return KernelLayout(unit_axes, matrix_axes, self.blocks)

    def to_matrices(self, kernel: Tensor, columns_first: bool = False) -> Tensor:
        """The kernel as a stack of matrices.

        Args:
            kernel: Tensor or NumPy array with at least one unit axis and one other axis.
            columns_first: Boolean. Whether to transpose the matrices. Defaults to `False`.

        Returns:
            Tensor or NumPy array of shape `(matrices, rows, columns)`, or
            `(matrices, columns, rows)` if `columns_first`, and of the kernel's dtype. A
            `ValueError` is raised if the layout does not fit the kernel's shape.
        """
        xp = np if isinstance(kernel, np.ndarray) else ops
        plan = self._plan(kernel.shape, columns_first)
        kernel = xp.transpose(xp.reshape(kernel, plan.split_shape), plan.permutation)
        return xp.reshape(kernel, plan.stack_shape)

    def from_matrices(
        self, matrices: Tensor, shape: Sequence[int], columns_first: bool = False
    ) -> Tensor:
        """The kernel of a stack of matrices, the inverse of `to_matrices()`.

        Args:
            matrices: Tensor or NumPy array of the shape that `to_matrices()` returns.
            shape: Sequence of integers. The shape of the kernel.
            columns_first: Boolean. Whether the matrices are transposed. Defaults to `False`.

        Returns:
            Tensor or NumPy array of the given shape and of the dtype of `matrices`. A
            `ValueError` is raised if the layout does not fit the shape.
        """
        xp = np if isinstance(matrices, np.ndarray) else ops
        plan = self._plan(shape, columns_first)
        permuted_shape = [plan.split_shape[axis] for axis in plan.permutation]
        inverse = sorted(range(len(plan.permutation)), key=plan.permutation.__getitem__)
        kernel = xp.transpose(xp.reshape(matrices, permuted_shape), inverse)
        return xp.reshape(kernel, tuple(shape))

    def has_columns_first(self, shape: Sequence[int]) -> bool:
        """Whether the last axis of a kernel of the given shape indexes rows of a matrix."""
        last = len(shape) - 1
        return last in self._unit_axes_within(shape) and last not in self._matrix_axes_within(shape)

    def units(self, shape: Sequence[int]) -> Shape:
        """The sizes of the unit axes of a kernel of the given shape, in the kernel's order."""
        return tuple(shape[axis] for axis in self._unit_axes_within(shape))

    def broadcastable_units(self, shape: Sequence[int]) -> Shape:
        """The shape in which one number per unit broadcasts to a kernel of the given shape."""
        unit_axes = self._unit_axes_within(shape)
        return tuple(size if axis in unit_axes else 1 for axis, size in enumerate(shape))

    def column_axes(self, shape: Sequence[int]) -> Shape:
        """The axes of a kernel of the given shape along which a row runs."""
        unit_axes = self._unit_axes_within(shape)
        return tuple(axis for axis in range(len(shape)) if axis not in unit_axes)

    @functools.cache  # noqa: B019 (Layouts and shapes are few, and every call asks.)
    def axes(self, shape: Shape) -> tuple[Shape, Shape]:
        """The unit axes and the column axes of a kernel of the given shape, none negative."""
        return tuple(self._unit_axes_within(shape)), self.column_axes(shape)

    @property
    def is_one_matrix(self) -> bool:
        """Whether the whole kernel is one matrix and not a stack of matrices."""
        return self.blocks == 1 and not self.matrix_axes

    def _unit_axes_within(self, shape: Sequence[int]) -> list[int]:
        rank = len(shape)
        if any(not -rank <= axis < rank for axis in self.unit_axes):
            raise ValueError(
                f"Expected unit axes within the kernel's {rank} axes. Received: "
                f"unit_axes={self.unit_axes}, kernel.shape={tuple(shape)}. Dense and "
                "convolution kernels hold their units on axis -1, kernels of transposed "
                "convolutions on axis -2."
            )
        unit_axes = sorted({axis % rank for axis in self.unit_axes})
        if not unit_axes or len(unit_axes) == rank:
            missing = "input axis" if unit_axes else "output unit axis"
            raise ValueError(
                "Expected a kernel with at least one output unit axis and at least one "
                f"input axis. Received: kernel.shape={tuple(shape)}, "
                f"unit_axes={self.unit_axes}, which leaves no {missing}. Biases, scalars "
                "and other vectors have no rows to condition: leave them out, or name the "
                "right `unit_axes`."
            )
        if shape[unit_axes[-1]] % self.blocks:
            raise ValueError(
                f"Expected the last unit axis to divide into {self.blocks} equal blocks. "
                f"Received: kernel.shape={tuple(shape)}, unit_axes={self.unit_axes}"
            )
        return unit_axes

    def _matrix_axes_within(self, shape: Sequence[int]) -> set[int]:
        return {axis % len(shape) for axis in self.matrix_axes}

    def _plan(self, shape: Sequence[int], columns_first: bool) -> "_Plan":
        unit_axes, rank = self._unit_axes_within(shape), len(shape)
        split_axis = unit_axes[-1]
        # The split axis becomes two axes, the blocks and the units of one block.
        split_shape = list(shape)
        split_shape[split_axis : split_axis + 1] = [
            self.blocks,
            shape[split_axis] // self.blocks,
        ]
        matrix_axes = self._matrix_axes_within(shape)
        moved = {axis: axis + (axis >= split_axis) for axis in range(rank)}
        stack = [moved[axis] for axis in unit_axes if axis in matrix_axes] + [split_axis]
        rows = [moved[axis] for axis in unit_axes if axis not in matrix_axes]
        columns = [moved[axis] for axis in range(rank) if axis not in unit_axes]
        parts = (stack, columns, rows) if columns_first else (stack, rows, columns)
        return _Plan(
            split_shape=tuple(split_shape),
            permutation=sum(map(tuple, parts), ()),
            stack_shape=tuple(math.prod(split_shape[axis] for axis in axes) for axes in parts),
        )


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The reshape, transpose and reshape from a kernel to its matrices."""

    split_shape: Shape
    permutation: Shape
    stack_shape: Shape


def _axes(name: str, value: int | Sequence[int]) -> Shape:
    axes = (value,) if isinstance(value, int) else value
    if (
        not isinstance(axes, (tuple, list, range))
        or any(not isinstance(axis, int) or isinstance(axis, bool) for axis in axes)
        or isinstance(value, bool)
    ):
        raise TypeError(
            f"Expected `{name}` to be an integer or a tuple of integers. Received: "
            f"{name}={value!r} (of type {type(value).__name__})"
        )
    return tuple(axes)
