"""Kernels as matrices and back, for any unit axes."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_wcond.kernels.keras_layers import kernel_layouts
from keras_wcond.kernels.layout import KernelLayout
from tests.helpers import normal

layers = keras.layers


def test_gates_are_matrices_of_their_own():
    kernel = normal(3, 8, dtype="float64")
    matrices = KernelLayout(blocks=4).to_matrices(kernel)
    for gate in range(4):
        np.testing.assert_array_equal(matrices[gate], kernel[:, 2 * gate : 2 * gate + 2].T)


def test_channels_of_a_depthwise_kernel_are_matrices_of_their_own():
    kernel = normal(3, 3, 5, 2, dtype="float64")
    matrices = kernel_layouts(layers.DepthwiseConv2D(3))["kernel"].to_matrices(kernel)
    for channel in range(5):
        expected = kernel[:, :, channel].reshape(9, 2).T
        np.testing.assert_array_equal(matrices[channel], expected)


@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=5),
    data=st.data(),
)
def test_any_unit_axes_partition_the_kernel(shape, data):
    rank = len(shape)
    axes = data.draw(st.sets(st.integers(0, rank - 1), min_size=1, max_size=rank - 1))
    signed = [axis - rank * data.draw(st.booleans()) for axis in sorted(axes)]
    kernel = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    layout = KernelLayout(unit_axes=signed)
    (matrix,) = layout.to_matrices(kernel)
    assert matrix.shape[0] == np.prod([shape[axis] for axis in axes])
    # Moving the unit axes to the front is the definition of the matrix.
    front = np.moveaxis(kernel, sorted(axes), range(len(axes)))
    np.testing.assert_array_equal(matrix, front.reshape(matrix.shape))
    assert layout.units(shape) == tuple(shape[axis] for axis in sorted(axes))


LAYOUTS = [
    KernelLayout(),
    KernelLayout(0),
    KernelLayout(-2),
    KernelLayout(blocks=3),
    KernelLayout((2, 3), matrix_axes=2),
    KernelLayout((-2, -1), matrix_axes=-1),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
def test_columns_first_is_the_transpose(layout):
    kernel = normal(3, 2, 5, 6)
    matrices = layout.to_matrices(kernel)
    found = layout.to_matrices(kernel, columns_first=True)
    np.testing.assert_array_equal(found, np.swapaxes(matrices, 1, 2))
    back = layout.from_matrices(found, kernel.shape, columns_first=True)
    np.testing.assert_array_equal(back, kernel)


def test_kernels_whose_last_axis_indexes_rows_have_columns_first():
    found = [layout.has_columns_first((3, 2, 5, 6)) for layout in LAYOUTS]
    assert found == [True, False, False, True, True, False]


@pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
def test_a_stack_of_kernels_has_the_matrices_of_all(layout):
    kernels = [normal(3, 2, 5, 6, seed=seed) for seed in range(3)]
    stacked = layout.of_stack().to_matrices(np.stack(kernels))
    expected = np.concatenate([layout.to_matrices(kernel) for kernel in kernels])
    np.testing.assert_array_equal(stacked, expected)


@pytest.mark.parametrize(
    ("shape", "unit_axes", "message"),
    [
        ((3, 4), 2, r"within the kernel's 2 axes.*Received: unit_axes=\(2,\).*\(3, 4\)"),
        ((3, 4), (-1, -3), r"within the kernel's 2 axes.*Received: unit_axes=\(-1, -3\)"),
        ((), -1, r"within the kernel's 0 axes"),
        ((4,), -1, r"at least one input axis.*shape=\(4,\).*leave them out"),
        ((3, 4), (0, 1), r"which leaves no input axis"),
        ((3, 4), (), r"which leaves no output unit axis"),
    ],
)
def test_unit_axes_that_make_no_matrix_are_refused(shape, unit_axes, message):
    with pytest.raises(ValueError, match=message):
        KernelLayout(unit_axes).to_matrices(np.ones(shape))


@pytest.mark.parametrize("unit_axes", [1.0, "last", True, (0, True), None])
def test_unit_axes_that_are_no_integers_are_refused(unit_axes):
    with pytest.raises(TypeError, match=r"integer or a tuple of integers. Received: unit_axes="):
        KernelLayout(unit_axes)


def test_blocks_that_do_not_divide_the_units_are_refused():
    with pytest.raises(ValueError, match=r"divide into 4 equal blocks. Received: .*\(3, 6\)"):
        KernelLayout(blocks=4).to_matrices(np.ones((3, 6)))
    with pytest.raises(ValueError, match=r"positive integer. Received: blocks=0"):
        KernelLayout(blocks=0)


def test_matrix_axes_that_are_no_unit_axes_are_refused():
    with pytest.raises(ValueError, match=r"`matrix_axes` to be one of `unit_axes`"):
        KernelLayout(unit_axes=-1, matrix_axes=-2)
    message = r"integer or a tuple of integers. Received: matrix_axes='last' \(of type str\)"
    with pytest.raises(TypeError, match=message):
        KernelLayout(matrix_axes="last")
