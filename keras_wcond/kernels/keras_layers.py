"""The layouts of the kernels in Keras' layers.

The axis of the output units differs between the kinds of layers. This module is the only place
that knows these axes.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import keras

from keras_wcond.kernels.layout import KernelLayout

# By the path of a kernel within a layer.
Layouts: TypeAlias = dict[str, KernelLayout]
_Describe: TypeAlias = Callable[[keras.layers.Layer], Layouts]


def kernel_layouts(layer: keras.layers.Layer) -> Layouts:
    """The layouts of the kernels in a Keras layer.

    Args:
        layer: A Keras layer. An attention layer has no kernels before it is built, which raises
            a `ValueError`.

    Returns:
        A dict from a weight's path within the layer (`"kernel"`, `"query/kernel"`,
        `"lstm_cell/recurrent_kernel"`) to its `KernelLayout`. It is empty for a layer without a
        kernel, and for an `EinsumDense` layer whose kernel adds no axis to the outputs. The
        embeddings of an `Embedding` layer are listed too, with one row per token vector. The
        caller decides whether to condition them.

    Examples:
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


def _one(layout: KernelLayout, path: str = "kernel") -> _Describe:
    return lambda layer: {path: layout}


def _grouped(layer: keras.layers.Layer) -> Layouts:
    return {"kernel": _in_blocks(layer.groups)}


@functools.cache  # Every call of a layer asks for its layouts.
def _in_blocks(blocks: int) -> KernelLayout:
    return KernelLayout(blocks=blocks)


def _separable(layer: keras.layers.Layer) -> Layouts:
    return {"depthwise_kernel": _DEPTHWISE, "pointwise_kernel": KernelLayout()}


def _gated(gates: int) -> _Describe:
    layout = KernelLayout(blocks=gates)
    return lambda cell: {"kernel": layout, "recurrent_kernel": layout}


def _cell(layer: keras.layers.Layer) -> Layouts:
    return _within_cell(layer, kernel_layouts(layer.cell))


def _convolutional_cell(layer: keras.layers.Layer) -> Layouts:
    # The cell's class is not public. Only its layer can be recognized.
    return _within_cell(layer, _gated(4)(layer.cell))


def _within_cell(layer: keras.layers.Layer, layouts: Layouts) -> Layouts:
    return {f"{layer.cell.name}/{path}": layout for path, layout in layouts.items()}


def _einsum(layer: keras.layers.Layer) -> Layouts:
    return dict(_of_equation(layer.equation))


@functools.cache
def _of_equation(equation: str) -> Layouts:
    inputs, rest = equation.replace(" ", "").split(",")
    kernel, outputs = rest.split("->")
    units = [i for i, axis in enumerate(kernel) if axis in outputs and axis not in inputs]
    # Without such an axis the kernel only scales its inputs, and has no output units.
    return {"kernel": KernelLayout(unit_axes=units)} if units else {}


def _projections(layer: keras.layers.Layer) -> Layouts:
    if not layer.built:
        raise ValueError(
            f"Expected a built {type(layer).__name__}. Received: layer.name={layer.name!r}, "
            "which is not built yet. Call it, or its `build()`, first."
        )
    # The kernels have shape (inputs, heads, size), and (heads, size, *outputs) in the output.
    layouts: Layouts = {}
    for weight in layer.weights:
        path = weight.path.removeprefix(f"{layer.path}/")
        if path == "attention_output/kernel":
            layouts[path] = KernelLayout(unit_axes=range(2, len(weight.shape)))
        elif path.endswith("/kernel"):
            layouts[path] = KernelLayout(unit_axes=(1, 2))
    return layouts


# The first match counts. None of these Keras classes extends another one.
_TABLE: tuple[tuple[Any, _Describe], ...] = (
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
