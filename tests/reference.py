"""The mathematics written out in NumPy and float64, without the package's own helpers."""

import itertools

import numpy as np


def equilibrated(kernel, unit_axis=-1):
    """Row equilibration of a kernel whose one unit axis is given."""
    kernel = np.asarray(kernel, "float64")
    others = tuple(axis for axis in range(kernel.ndim) if axis != unit_axis % kernel.ndim)
    norms = np.sqrt(np.sum(kernel**2, axis=others, keepdims=True))
    return kernel / np.where(norms == 0.0, 1.0, norms)


def row_norms(kernel, axes):
    """Norms of the units of a kernel whose axes are told by letters: `"hwui->u"`."""
    letters, units = axes.split("->")
    kernel = np.asarray(kernel, "float64")
    return np.sqrt(np.einsum(f"{letters},{letters}->{units}", kernel, kernel))


def equilibrated_along(kernel, axes):
    """Row equilibration of a kernel whose axes are told by letters: `"hwui->u"`."""
    letters, units = axes.split("->")
    reciprocals = 1.0 / row_norms(kernel, axes)
    return np.einsum(f"{letters},{units}->{letters}", np.asarray(kernel, "float64"), reciprocals)


def equilibrated_gradient(kernel, upstream):
    """The gradient in W of Σ upstream · Ŵ for a Dense kernel: (G - ŵ⟨ŵ, G⟩)/‖w‖ by unit."""
    kernel, upstream = np.asarray(kernel, "float64"), np.asarray(upstream, "float64")
    norms = np.linalg.norm(kernel, axis=0)
    unit = kernel / norms
    return (upstream - unit * np.sum(unit * upstream, axis=0)) / norms


def convolution(inputs, kernel, strides=1, padding="valid", dilation=1, groups=1):
    """Convolution (cross-correlation, as in Keras) of any rank, channels last."""
    inputs, kernel = np.asarray(inputs, "float64"), np.asarray(kernel, "float64")
    rank = inputs.ndim - 2
    size = np.array(kernel.shape[:rank])
    extent = (size - 1) * dilation + 1
    space = np.array(inputs.shape[1:-1])
    if padding == "same":
        steps = -(-space // strides)
        missing = np.maximum((steps - 1) * strides + extent - space, 0)
        widths = [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)]
        inputs = np.pad(inputs, widths)
        space = space + missing
    steps = (space - extent) // strides + 1
    channels, filters = kernel.shape[rank], kernel.shape[-1] // groups
    outputs = np.zeros((len(inputs), *steps, kernel.shape[-1]))
    for position in itertools.product(*map(range, size)):
        window = tuple(
            slice(p * dilation, p * dilation + (n - 1) * strides + 1, strides)
            for p, n in zip(position, steps, strict=True)
        )
        seen = inputs[(slice(None), *window)]
        for group in range(groups):
            taken = seen[..., group * channels : (group + 1) * channels]
            made = slice(group * filters, (group + 1) * filters)
            outputs[..., made] += taken @ kernel[position][:, made]
    return outputs


def central_differences(function, array, step=1e-6):
    """The gradient of a scalar function of a float64 array."""
    array = np.array(array, "float64")
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        moved = array.copy()
        moved[index] += step
        above = function(moved)
        moved[index] -= 2 * step
        gradient[index] = (above - function(moved)) / (2 * step)
    return gradient
