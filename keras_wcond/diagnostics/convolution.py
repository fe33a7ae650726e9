"""The norm of a convolution as a linear map of images, not of its flattened kernel."""

import math
from collections.abc import Sequence
from typing import Literal

import keras
import numpy as np

from keras_wcond.arguments import positive_integer
from keras_wcond.linalg.arrays import Tensor
from keras_wcond.linalg.gram_iteration import are_tall, bounded, wide
from keras_wcond.linalg.norms import divided_by_maximum

# The entries that are held in memory at a time.
_CHUNK = 2**24


def convolution_operator_norm(
    kernel: Tensor,
    spatial_shape: Sequence[int],
    padding: Literal["circular", "zero"] = "circular",
    dilation_rate: int | Sequence[int] = 1,
    groups: int = 1,
    iterations: int = 8,
) -> float:
    """An upper bound, nearly tight, of the spectral norm of a convolution itself.

    A convolution is a linear map of whole inputs of shape `(*spatial_shape, channels)`.
    Its norm is the largest factor by which it stretches an input. It is not the norm of the
    flattened kernel, which `singular_values()` computes. Overlapping windows read the same
    entries, so the norm of the convolution is larger, up to the square root of the number of
    positions in the kernel.

    With circular padding, the Fourier transform splits the map into one matrix of filters ×
    channels per frequency. The norm is the largest norm of these matrices. Gram iteration bounds
    it. The result exceeds it by a factor of at most `(2 · channels)^(2^-(iterations + 1))`, which
    is 1.2 % for 256 channels and 8 iterations.

    The bound holds for any stride, since strides leave outputs out. A transposed convolution has
    the norm of the convolution whose gradient it is.

    Args:
        kernel: Tensor, variable or array of shape `(*size, channels / groups, filters)`, as
            in `Conv1D/2D/3D`. The kernel of a `DepthwiseConv2D` layer is first reshaped to
            `(*size, 1, channels * depth_multiplier)`, with `groups=channels`. It is converted
            to float64.
        spatial_shape: Tuple of integers, the spatial shape of the input in pixels or steps, with
            as many axes as `size`.
        padding: `"circular"`, which also bounds layers with `padding="valid"`, or `"zero"` for
            layers with `padding="same"`. `"zero"` is bounded by a circular convolution on an
            input that is larger by half the kernel, which has room for the zeros. Defaults to
            `"circular"`.
        dilation_rate: Integer or tuple of integers, one per axis of `size`. Defaults to 1.
        groups: Integer, the groups of the convolution. Defaults to 1.
        iterations: Integer, the steps of Gram iteration. Defaults to 8.

    Returns:
        Float. NaN for a kernel with non-finite entries.

    Raises:
        ValueError: The shapes do not match, `padding` is another word, or `groups` does not
            divide the number of filters.

    Examples:
        >>> kernel = np.ones((3, 1, 1)) / 3  # a moving mean does not change a constant
        >>> round(convolution_operator_norm(kernel, (16,)), 2)
        1.0
        >>> float(np.linalg.norm(kernel.reshape(3, 1), ord=2).round(2))
        0.58

    Reference:

    - [Delattre et al., 2023](https://arxiv.org/abs/2305.16173)
    """
    kernel = keras.ops.convert_to_numpy(kernel).astype("float64")
    size, spatial_shape = kernel.shape[:-2], tuple(spatial_shape)
    if not size or len(spatial_shape) != len(size):
        raise ValueError(
            "Expected a kernel of shape `(*size, channels / groups, filters)` and a "
            "`spatial_shape` with as many axes as `size`. Received: "
            f"kernel.shape={kernel.shape}, spatial_shape={spatial_shape}"
        )
    if padding not in ("circular", "zero"):
        raise ValueError(
            f"Expected `padding` to be 'circular' or 'zero'. Received: padding={padding!r}. "
            "'circular' also bounds the norm with `padding='valid'`, and 'zero' is 'same'."
        )
    if kernel.shape[-1] % positive_integer("groups", groups):
        raise ValueError(
            "Expected a number of filters that divides into `groups`. Received: "
            f"kernel.shape={kernel.shape}, groups={groups}"
        )
    rates = (dilation_rate,) * len(size) if isinstance(dilation_rate, int) else dilation_rate
    extents = [(taps - 1) * rate + 1 for taps, rate in zip(size, rates, strict=True)]
    if padding == "zero":
        spatial_shape = tuple(n + e // 2 for n, e in zip(spatial_shape, extents, strict=True))
    if not np.isfinite(kernel).all():
        return math.nan
    matrices = _by_frequency(kernel, spatial_shape, rates, groups)
    return _largest_bound(matrices, positive_integer("iterations", iterations))


def _by_frequency(
    kernel: np.ndarray, spatial_shape: Sequence[int], rates: Sequence[int], groups: int
) -> np.ndarray:
    """The complex matrices of shape `(·, filters / groups, channels)` of all frequencies."""
    axes = tuple(range(len(spatial_shape)))
    impulse = np.zeros((*spatial_shape, *kernel.shape[-2:]))
    places = [np.arange(n) * rate for n, rate in zip(kernel.shape, rates, strict=False)]
    wrapped = np.ix_(*(p % n for p, n in zip(places, spatial_shape, strict=True)))
    # If the kernel is larger than the input, several of its entries fall on one position.
    np.add.at(impulse, wrapped, kernel)
    transformed = np.fft.rfftn(impulse, axes=axes)
    channels, filters = kernel.shape[-2:]
    transformed = transformed.reshape(-1, channels, groups, filters // groups)
    by_group: np.ndarray = transformed.transpose(0, 2, 3, 1)
    return by_group.reshape(-1, filters // groups, channels)


def _largest_bound(matrices: np.ndarray, iterations: int) -> float:
    bounds = []
    step = max(1, _CHUNK // (4 * matrices[0].size))
    for start in range(0, len(matrices), step):
        chunk = matrices[start : start + step]
        # The real form of a complex matrix has each of its singular values twice.
        upper = np.concatenate([chunk.real, -chunk.imag], axis=2)
        lower = np.concatenate([chunk.imag, chunk.real], axis=2)
        scaled, maximum, is_zero = divided_by_maximum(
            np.concatenate([upper, lower], axis=1), axis=(1, 2)
        )
        inverse = bounded(wide(scaled, are_tall(scaled)), is_zero, iterations).inverse
        bounds.append(np.where(is_zero, 0.0, maximum / np.where(is_zero, 1.0, inverse)).max())
    return float(max(bounds))
