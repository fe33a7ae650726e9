"""The norm of a convolution as a linear map of images, not of its flattened kernel."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_wcond.arguments import positive_integer
from keras_wcond.linalg.gram_iteration import bounded, wide
from keras_wcond.linalg.norms import divided_by_maximum

# How many numbers are worked on at a time.
_CHUNK = 2**24


def convolution_operator_norm(
    kernel: Any,
    spatial_shape: Sequence[int],
    padding: str = "circular",
    dilation_rate: int | Sequence[int] = 1,
    groups: int = 1,
    iterations: int = 8,
) -> float:
    """An upper bound, nearly tight, of the spectral norm of a convolution itself.

    A convolution is a linear map of whole inputs of shape `(*spatial_shape, channels)`.
    Its norm, by which it stretches an input at most, is not that of the flattened kernel,
    which `singular_values()` looks at: overlapping windows see the same entries, so it is
    larger, up to the square root of the number of places in the kernel.

    With circular padding the Fourier transform splits the map into one matrix of filters ×
    channels per frequency. The norm is the largest of theirs, and Gram iteration bounds it:
    the result exceeds it by a factor of at most `(2 · channels)^(2^-(iterations + 1))`,
    1.2 % for 256 channels and 8 iterations.

    Strides leave outputs out, so the bound holds for any stride; a transposed convolution
    has the norm of the convolution whose gradient it is.

    Args:
        kernel: Tensor, variable or array of shape `(*size, channels / groups, filters)`, as
            in `Conv1D/2D/3D`. That of a `DepthwiseConv2D` layer is first reshaped to
            `(*size, 1, channels * depth_multiplier)`, with `groups=channels`.
        spatial_shape: Tuple of integers, the spatial shape of the input.
        padding: `"circular"`, or `"zero"` for `padding="same"`, which is bounded by a
            circular convolution on an input that is larger by half the kernel, since that
            has room for the zeros. `"circular"` also bounds `padding="valid"`.
        dilation_rate: Integer or tuple of integers.
        groups: Integer.
        iterations: Integer, of Gram iteration.

    Returns:
        Float. NaN for a kernel with non-finite entries.

    Example:

    >>> kernel = np.ones((3, 1, 1)) / 3  # a moving mean keeps a constant as it is
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


def _by_frequency(kernel, spatial_shape, rates, groups):
    """The matrices, filters × channels of a group, of all frequencies that differ."""
    axes = tuple(range(len(spatial_shape)))
    impulse = np.zeros((*spatial_shape, *kernel.shape[-2:]))
    places = [np.arange(n) * rate for n, rate in zip(kernel.shape, rates, strict=False)]
    wrapped = np.ix_(*(p % n for p, n in zip(places, spatial_shape, strict=True)))
    # Where the kernel is larger than the input, several of its entries meet in one place.
    np.add.at(impulse, wrapped, kernel)
    transformed = np.fft.rfftn(impulse, axes=axes)
    channels, filters = kernel.shape[-2:]
    transformed = transformed.reshape(-1, channels, groups, filters // groups)
    return transformed.transpose(0, 2, 3, 1).reshape(-1, filters // groups, channels)


def _largest_bound(matrices, iterations):
    bounds = []
    step = max(1, _CHUNK // (4 * matrices[0].size))
    for start in range(0, len(matrices), step):
        chunk = matrices[start : start + step]
        # The real matrix of a complex one, with each of its singular values twice.
        upper = np.concatenate([chunk.real, -chunk.imag], axis=2)
        lower = np.concatenate([chunk.imag, chunk.real], axis=2)
        scaled, maximum, is_zero = divided_by_maximum(
            np.concatenate([upper, lower], axis=1), axis=(1, 2)
        )
        inverse = bounded(wide(scaled)[0], is_zero, iterations).inverse
        bounds.append(np.where(is_zero, 0.0, maximum / np.where(is_zero, 1.0, inverse)).max())
    return float(max(bounds))
