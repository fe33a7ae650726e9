"""The layers to fuzz, with small inputs and the axes of their kernels, written out by hand.

The shapes are few, since JAX compiles each operation for each shape. Every row of a kernel has at
least three entries: a centered row of two has a constant direction.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_wcond

layers = keras.layers


@dataclasses.dataclass(frozen=True)
class Axes:
    """The axes of one kernel by letters: those of the stack of matrices, and of the rows.

    Args:
        letters: A letter for each axis of the kernel.
        rows: The letters of the axes that index rows, in the kernel's order.
        stack: The letters of the axes that index matrices. Defaults to `""`.
        blocks: Number of matrices side by side along the last row axis. Defaults to 1.
    """

    letters: str
    rows: str
    stack: str = ""
    blocks: int = 1


@dataclasses.dataclass(frozen=True)
class Variant:
    """A layer with arguments.

    Args:
        make: Function of further keyword arguments that returns the plain layer.
        shapes: The shape of each input, without the batch.
        kernels: The axes of each kernel, in the order of the layer's weights.
        conditioned: The conditioned class, or None for layers that only `Conditioned` takes.
        arguments: The arguments of the layer.
        options: The names of further arguments that may be drawn.
        tokens: The number of tokens for integer inputs, or 0 for floating-point ones.
    """

    make: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    kernels: tuple[Axes, ...]
    conditioned: type | None
    arguments: dict[str, Any]
    options: tuple[str, ...] = ()
    tokens: int = 0

    def plain(self, dtype, **arguments):
        return self.make(**self.arguments, **arguments, dtype=dtype)

    def inputs(self, seed=0):
        """A list of arrays, one for each input."""
        generator = np.random.default_rng(seed)
        if self.tokens:
            return [
                generator.integers(self.tokens, size=(2, *s)).astype("int32") for s in self.shapes
            ]
        return [generator.normal(size=(2, *s)).astype("float32") for s in self.shapes]


OPTIONS = ("activation", "use_bias")


def _variants(name, base, shape, kernels, changes, options=OPTIONS):
    """A variant for each change of a layer with a conditioned class."""
    variants = []
    for change in changes:
        arguments = {**base, **change}
        own = kernels
        if arguments.get("groups", 1) > 1:
            own = [dataclasses.replace(axes, blocks=arguments["groups"]) for axes in kernels]
        own_shape = shape
        if arguments.get("data_format") == "channels_first":
            own_shape = (shape[-1], *shape[:-1])
        plain = getattr(layers, name)
        conditioned = getattr(keras_wcond, f"Conditioned{name}")
        variants.append(Variant(plain, (own_shape,), tuple(own), conditioned, arguments, options))
    return tuple(variants)


FIRST = {"data_format": "channels_first"}
SAME = {"padding": "same", "strides": 2}
_DILATED = {"dilation_rate": 2, "padding": "same"}
_CHANGES = ({}, SAME, _DILATED, FIRST)
_GROUPS = ({"groups": 2}, {"groups": 2, **FIRST}, {"groups": 2, **_DILATED})
_TRANSPOSED = ({}, SAME, {"strides": 2}, _DILATED, FIRST)
_CONVOLUTION = {"filters": 4, "kernel_size": 2}
_DEPTHWISE = {"kernel_size": 3}
_DEPTHS = ({"depth_multiplier": 2}, {"depth_multiplier": 2, **FIRST}, {"dilation_rate": 2})

_ATTENTION = (Axes("ihk", "hk"), Axes("ihk", "hk"), Axes("ihk", "hk"), Axes("hko", "o"))


def _attention(name, arguments):
    conditioned = getattr(keras_wcond, f"Conditioned{name}")
    shapes = ((3, 4), (5, 4))
    options = ("use_bias",)
    return Variant(getattr(layers, name), shapes, _ATTENTION, conditioned, arguments, options)


def _einsum(equation, output_shape, shape, axes, bias_axes):
    arguments = {"equation": equation, "output_shape": output_shape, "bias_axes": bias_axes}
    return Variant(
        layers.EinsumDense,
        (shape,),
        (axes,),
        keras_wcond.ConditionedEinsumDense,
        arguments,
        ("activation",),
    )


def _recurrent(make, gates, *changes, shape=(4, 3), letters="iu", directions=1):
    axes = Axes(letters, "u", blocks=gates)
    kernels = (axes, axes) * directions
    return tuple(Variant(make, (shape,), kernels, None, change) for change in changes)


def _bidirectional(dtype, name, **arguments):
    inner = layers.GRU(4, dtype=dtype, return_sequences=True)
    return layers.Bidirectional(inner, dtype=dtype, name=name, **arguments)


def _stacked_cells(dtype, name, **arguments):
    cells = [layers.GRUCell(4, dtype=dtype), layers.SimpleRNNCell(3, dtype=dtype)]
    return layers.RNN(cells, dtype=dtype, name=name, **arguments)


def _distributed(dtype, name):
    return layers.TimeDistributed(layers.Conv1D(4, 2, dtype=dtype), dtype=dtype, name=name)


def _sequential(dtype, name):
    inner = [layers.Conv1D(4, 2, dtype=dtype), layers.Dense(3, dtype=dtype)]
    return keras.Sequential(inner, name=name)


def _convolutional_lstm(dtype, name, **arguments):
    return layers.ConvLSTM1D(3, 2, dtype=dtype, name=name, **arguments)


_DENSE = Axes("iu", "u")
KINDS: dict[str, tuple[Variant, ...]] = {
    "Dense": _variants("Dense", {"units": 4}, (3,), [_DENSE], [{}]),
    "Dense of sequences": _variants("Dense", {"units": 4}, (4, 3), [_DENSE], [{}]),
    # Large enough for its product to be scaled in place of its kernel.
    "Dense, wide": _variants("Dense", {"units": 130}, (256,), [_DENSE], [{}]),
    "Conv1D": _variants(
        "Conv1D",
        _CONVOLUTION,
        (6, 4),
        [Axes("kiu", "u")],
        (*_CHANGES, {"padding": "causal"}, *_GROUPS),
    ),
    "Conv2D": _variants(
        "Conv2D", _CONVOLUTION, (4, 5, 4), [Axes("hwiu", "u")], (*_CHANGES, *_GROUPS)
    ),
    "Conv3D": _variants(
        "Conv3D", _CONVOLUTION, (3, 3, 3, 4), [Axes("dhwiu", "u")], (*_CHANGES, *_GROUPS)
    ),
    "Conv1DTranspose": _variants(
        "Conv1DTranspose", _CONVOLUTION, (6, 4), [Axes("kui", "u")], _TRANSPOSED
    ),
    "Conv2DTranspose": _variants(
        "Conv2DTranspose", _CONVOLUTION, (4, 5, 4), [Axes("hwui", "u")], _TRANSPOSED
    ),
    "Conv3DTranspose": _variants(
        "Conv3DTranspose", _CONVOLUTION, (3, 3, 3, 4), [Axes("dhwui", "u")], _TRANSPOSED
    ),
    "DepthwiseConv1D": _variants(
        "DepthwiseConv1D", _DEPTHWISE, (6, 4), [Axes("kcm", "m", "c")], (*_CHANGES, *_DEPTHS)
    ),
    "DepthwiseConv2D": _variants(
        "DepthwiseConv2D", _DEPTHWISE, (5, 5, 4), [Axes("hwcm", "m", "c")], (*_CHANGES, *_DEPTHS)
    ),
    "SeparableConv1D": _variants(
        "SeparableConv1D",
        {"filters": 4, "kernel_size": 3},
        (6, 4),
        [Axes("kcm", "m", "c"), Axes("kiu", "u")],
        (*_CHANGES, *_DEPTHS),
    ),
    "SeparableConv2D": _variants(
        "SeparableConv2D",
        {"filters": 4, "kernel_size": 3},
        (5, 5, 4),
        [Axes("hwcm", "m", "c"), Axes("hwiu", "u")],
        (*_CHANGES, *_DEPTHS),
    ),
    "EinsumDense": (
        _einsum("abc,cde->abde", (4, 2, 4), (4, 3), Axes("cde", "de"), "de"),
        _einsum("...c,dc->...d", (4,), (3,), Axes("dc", "d"), "d"),
        _einsum("abcd,cde->abe", (4, 4), (4, 2, 3), Axes("cde", "e"), None),
    ),
    "MultiHeadAttention": (
        _attention("MultiHeadAttention", {"num_heads": 2, "key_dim": 4}),
        _attention("MultiHeadAttention", {"num_heads": 2, "key_dim": 4, "value_dim": 3}),
        _attention("MultiHeadAttention", {"num_heads": 2, "key_dim": 4, "output_shape": 3}),
    ),
    "GroupQueryAttention": (
        _attention(
            "GroupQueryAttention",
            {"head_dim": 4, "num_query_heads": 4, "num_key_value_heads": 2},
        ),
    ),
    "SimpleRNN": _recurrent(layers.SimpleRNN, 1, {"units": 4}, {"units": 4, "go_backwards": True}),
    "LSTM": _recurrent(
        layers.LSTM,
        4,
        {"units": 4},
        {"units": 4, "return_sequences": True},
        {"units": 4, "unroll": True},
    ),
    "GRU": _recurrent(
        layers.GRU,
        3,
        {"units": 4},
        {"units": 4, "reset_after": False},
        {"units": 4, "unroll": True},
    ),
    "Bidirectional": _recurrent(_bidirectional, 3, {}, {"merge_mode": "sum"}, directions=2),
    "RNN of cells": (
        Variant(
            _stacked_cells,
            ((4, 3),),
            (
                Axes("iu", "u", blocks=3),
                Axes("iu", "u", blocks=3),
                _DENSE,
                _DENSE,
            ),
            None,
            {},
        ),
    ),
    "ConvLSTM1D": _recurrent(
        _convolutional_lstm, 4, {}, {"return_sequences": True}, shape=(2, 5, 3), letters="kiu"
    ),
    "TimeDistributed": (Variant(_distributed, ((2, 6, 4),), (Axes("kiu", "u"),), None, {}),),
    "Sequential": (Variant(_sequential, ((6, 4),), (Axes("kiu", "u"), _DENSE), None, {}),),
    "Embedding": (
        Variant(
            layers.Embedding,
            ((4,),),
            (Axes("td", "t"),),
            None,
            {"input_dim": 6, "output_dim": 4},
            tokens=6,
        ),
    ),
}
