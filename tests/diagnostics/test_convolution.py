import itertools

import numpy as np
import pytest

from keras_wcond import convolution_operator_norm
from tests.helpers import normal


def dense_operator(kernel, shape, padding, dilation=1, groups=1):
    """The convolution's matrix, entry by entry, from what a convolution is."""
    *size, channels, filters = kernel.shape
    positions = list(itertools.product(*map(range, shape)))
    index = {position: i for i, position in enumerate(positions)}
    inputs = channels * groups
    matrix = np.zeros((len(positions), filters, len(positions), inputs))
    for position, tap in itertools.product(positions, itertools.product(*map(range, size))):
        offset = [(n - 1) * dilation // 2 for n in size]
        place = tuple(p + t * dilation - o for p, t, o in zip(position, tap, offset, strict=True))
        if padding == "circular":
            place = tuple(p % n for p, n in zip(place, shape, strict=True))
        if place not in index:
            continue
        for f in range(filters):
            group = f // (filters // groups)
            read = slice(group * channels, (group + 1) * channels)
            matrix[index[position], f, index[place], read] += kernel[(*tap, slice(None), f)]
    return matrix.reshape(len(positions) * filters, -1)


CASES = [
    ((3, 2, 4), (7,), 1, 1),
    ((4, 3, 2), (6,), 1, 1),
    ((3, 2, 3), (9,), 2, 1),
    ((3, 3, 2, 4), (5, 6), 1, 1),
    ((3, 2, 1, 6), (4, 5), 1, 3),
    ((1, 1, 3, 3), (3, 3), 1, 1),
    ((2, 2, 2, 2, 2), (3, 3, 4), 1, 1),
    ((5, 2, 2), (3,), 1, 1),
]


@pytest.mark.parametrize(("shape", "spatial_shape", "dilation", "groups"), CASES)
def test_circular_norm_is_that_of_the_dense_operator(shape, spatial_shape, dilation, groups):
    kernel = normal(*shape)
    operator = dense_operator(kernel.astype("float64"), spatial_shape, "circular", dilation, groups)
    expected = np.linalg.norm(operator, ord=2)
    bound = convolution_operator_norm(
        kernel, spatial_shape, dilation_rate=dilation, groups=groups, iterations=6
    )
    rank = 2 * min(shape[-2], shape[-1] // groups)
    assert expected * (1 - 1e-9) <= bound <= expected * rank ** (2.0**-7) * (1 + 1e-9)


@pytest.mark.parametrize(("shape", "spatial_shape", "dilation", "groups"), CASES)
def test_zero_padding_is_bounded_and_nearly_reached(shape, spatial_shape, dilation, groups):
    kernel = normal(*shape)
    operator = dense_operator(kernel.astype("float64"), spatial_shape, "zero", dilation, groups)
    expected = np.linalg.norm(operator, ord=2)
    bound = convolution_operator_norm(kernel, spatial_shape, "zero", dilation, groups)
    assert expected <= bound <= 1.5 * expected


def test_zero_padding_can_exceed_circular_padding_of_that_size():
    # The frequency that a difference answers most to does not fit into an odd circle.
    kernel = np.array([1.0, -1.0]).reshape(2, 1, 1)
    expected = np.linalg.norm(dense_operator(kernel, (3,), "zero"), ord=2)
    assert convolution_operator_norm(kernel, (3,)) < expected
    assert expected <= convolution_operator_norm(kernel, (3,), "zero") <= 1.2 * expected


def test_is_not_the_norm_of_the_flattened_kernel():
    kernel = np.ones((3, 3, 1, 1)) / 9.0
    assert abs(convolution_operator_norm(kernel, (8, 8)) - 1.0) < 0.01
    assert abs(np.linalg.norm(kernel.reshape(9, 1), ord=2) - 1.0 / 3.0) < 1e-12


def test_scale_zero_and_non_finite_kernels():
    kernel = normal(3, 3, 2, 2).astype("float64")
    expected = convolution_operator_norm(kernel, (6, 6))
    scaled = convolution_operator_norm(1e30 * kernel, (6, 6))
    np.testing.assert_allclose(scaled, 1e30 * expected, rtol=1e-9)
    assert convolution_operator_norm(0.0 * kernel, (6, 6)) == 0.0
    kernel[0, 0, 0, 0] = np.inf
    assert np.isnan(convolution_operator_norm(kernel, (6, 6)))


def test_arguments_are_checked():
    kernel = normal(3, 3, 2, 4)
    with pytest.raises(ValueError, match=r"as many axes as `size`. Received: .*\(8,\)"):
        convolution_operator_norm(kernel, (8,))
    with pytest.raises(ValueError, match=r"'circular' or 'zero'. Received: padding='same'"):
        convolution_operator_norm(kernel, (8, 8), "same")
    with pytest.raises(ValueError, match=r"divides into `groups`. Received: .*groups=3"):
        convolution_operator_norm(kernel, (8, 8), groups=3)
    with pytest.raises(ValueError, match=r"`iterations` to be a positive integer"):
        convolution_operator_norm(kernel, (8, 8), iterations=0)
