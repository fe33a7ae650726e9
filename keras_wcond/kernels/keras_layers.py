"""The layouts of the kernels of Keras' layers: which axes are output units.

Keras lays kernels out differently for every kind of layer. This module is the only place that
knows how.
"""

import functools
from typing import Any

import keras

from keras_wcond.kernels.layout import KernelLayout


def kernel_layouts(layer: keras.layers.Layer) -> dict[str, KernelLayout]:
    """The layouts of a Keras layer's kernels, by the path of each within the layer.

    Args:
        layer: A Keras layer. Attention layers have to be built, since only then do
            they have their kernels.

    Returns:
        A dict from a weight's path within the layer (`"kernel"`, `"query/kernel"`,
        `"lstm_cell/recurrent_kernel"`) to its `KernelLayout`; empty for a layer without a
        kernel, or with an `EinsumDense` kernel without an axis of its own in the output. An
        `Embedding` has one row per token vector; whether it should be conditioned at all is
        for the caller to say.

    Example:

    >>> kernel_layouts(keras.layers.DepthwiseConv2D(3))
    {'kernel': KernelLayout(unit_axes=(-2, -1), matrix_axes=(-2,), blocks=1)}
    >>> kernel_layouts(keras.layers.EinsumDense("abc,cde->abde", (None, 2, 8)))
    {'kernel': KernelLayout(unit_axes=(1, 2), matrix_axes=(), blocks=1)}
    """
    for classes, describe in _TABLE:
        if isinstance(layer, classes):
            return describe(layer)
    return {}


_layers = keras.layers
_DEPTHWISE = KernelLayout(unit_axes=(-2, -1), matrix_axes=-2)


def _one(layout: KernelLayout, path: str = "kernel"):
    return lambda layer: {path: layout}


def _grouped(layer):
    return {"kernel": _in_blocks(layer.groups)}


@functools.cache  # A layer asks in each of its calls.
def _in_blocks(blocks):
    return KernelLayout(blocks=blocks)


def _separable(layer):
    return {"depthwise_kernel": _DEPTHWISE, "pointwise_kernel": KernelLayout()}


def _gated(gates: int):
    layout = KernelLayout(blocks=gates)
    return lambda cell: {"kernel": layout, "recurrent_kernel": layout}


def _cell(layer):
    return _within_cell(layer, kernel_layouts(layer.cell))


def _convolutional_cell(layer):
    # The cell's class is not public, so that only its layer can be recognized.
    return _within_cell(layer, _gated(4)(layer.cell))


def _within_cell(layer, layouts):
    return {f"{layer.cell.name}/{path}": layout for path, layout in layouts.items()}


def _einsum(layer):
    return dict(_of_equation(layer.equation))


@functools.cache
def _of_equation(equation):
    inputs, rest = equation.replace(" ", "").split(",")
    kernel, outputs = rest.split("->")
    units = [i for i, axis in enumerate(kernel) if axis in outputs and axis not in inputs]
    # Without such an axis the kernel only weighs its inputs: it has no output units.
    return {"kernel": KernelLayout(unit_axes=units)} if units else {}


def _projections(layer):
    if not layer.built:
        raise ValueError(
            f"Expected a built {type(layer).__name__}. Received: layer.name={layer.name!r}, "
            "which is not built yet. Call it, or its `build()`, first."
        )
    # Kernels of (inputs, heads, size), and (heads, size, *outputs) at the end.
    layouts = {}
    for weight in layer.weights:
        path = weight.path.removeprefix(f"{layer.path}/")
        if path == "attention_output/kernel":
            layouts[path] = KernelLayout(unit_axes=range(2, len(weight.shape)))
        elif path.endswith("/kernel"):
            layouts[path] = KernelLayout(unit_axes=(1, 2))
    return layouts


# The first match counts: the Keras classes here do not extend one another, except that
# GRU, LSTM and SimpleRNN are all RNN.
_TABLE: tuple[tuple[Any, Any], ...] = (
    (_layers.Dense, _one(KernelLayout())),
    ((_layers.Conv1D, _layers.Conv2D, _layers.Conv3D), _grouped),
    (
        (_layers.Conv1DTranspose, _layers.Conv2DTranspose, _layers.Conv3DTranspose),
        _one(KernelLayout(unit_axes=-2)),
    ),
    ((_layers.DepthwiseConv1D, _layers.DepthwiseConv2D), _one(_DEPTHWISE)),
    ((_layers.SeparableConv1D, _layers.SeparableConv2D), _separable),
    (_layers.EinsumDense, _einsum),
    ((_layers.MultiHeadAttention, _layers.GroupQueryAttention), _projections),
    (_layers.SimpleRNNCell, _gated(1)),
    (_layers.GRUCell, _gated(3)),
    (_layers.LSTMCell, _gated(4)),
    ((_layers.SimpleRNN, _layers.GRU, _layers.LSTM), _cell),
    ((_layers.ConvLSTM1D, _layers.ConvLSTM2D, _layers.ConvLSTM3D), _convolutional_cell),
    (_layers.Embedding, _one(KernelLayout(unit_axes=0), "embeddings")),
)
