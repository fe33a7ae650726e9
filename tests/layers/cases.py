"""The layers that share one contract, with inputs for each."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest

import keras_wcond
from tests.helpers import normal


@dataclasses.dataclass(frozen=True)
class Case:
    """A conditioned layer and the plain one, with what they take.

    `axes` tells by letters which axes of each kernel are units, written out by hand.
    """

    conditioned: type
    plain: type
    arguments: dict[str, Any]
    input_shapes: tuple[tuple[int, ...], ...]
    axes: dict[str, str]

    def layer(self, **arguments):
        """The conditioned layer, built."""
        return self.built(self.conditioned(**{**self.arguments, **arguments}))

    def plain_layer(self, **arguments):
        return self.built(self.plain(**{**self.arguments, **arguments}))

    def built(self, layer):
        layer.build(*((None, *shape) for shape in self.input_shapes))
        return layer

    def inputs(self, batch=2):
        """A list of the arrays the layer is called on."""
        return [normal(batch, *shape, seed=7 + i) for i, shape in enumerate(self.input_shapes)]

    def rounding(self, layer, outputs):
        """How far a layer's outputs may be from those of the layer it is folded into.

        Folding computes the conditioned kernel on the host, and so up to rounding.
        """
        if layer.kernel_conditioner is None:
            return 0.0
        relative = 4e-6 if layer.compute_dtype == "float32" else 1e-2
        return relative * np.max(np.abs(outputs))

    def model(self, layer):
        tensors = [keras.Input(shape) for shape in self.input_shapes]
        return keras.Model(tensors, keras.layers.Flatten()(layer(*tensors)))


def _case(name, arguments, *input_shapes, **axes):
    plain = getattr(keras.layers, name)
    conditioned = getattr(keras_wcond, f"Conditioned{name}")
    return Case(conditioned, plain, arguments, input_shapes, axes)


_PROJECTIONS = {
    "query/kernel": "ihk->hk",
    "key/kernel": "ihk->hk",
    "value/kernel": "ihk->hk",
    "attention_output/kernel": "hko->o",
}

CASES = {
    "Dense": _case("Dense", {"units": 4, "activation": "tanh"}, (3,), kernel="iu->u"),
    # Large enough for its product to be scaled in place of its kernel.
    "Dense, wide": _case("Dense", {"units": 130, "activation": "relu"}, (256,), kernel="iu->u"),
    "Conv1D": _case(
        "Conv1D", {"filters": 4, "kernel_size": 3, "padding": "causal"}, (8, 2), kernel="kiu->u"
    ),
    "Conv2D": _case(
        "Conv2D", {"filters": 4, "kernel_size": 3, "strides": 2}, (7, 7, 2), kernel="hwiu->u"
    ),
    "Conv2D, groups": _case(
        "Conv2D", {"filters": 4, "kernel_size": 3, "groups": 2}, (5, 5, 6), kernel="hwiu->u"
    ),
    "Conv3D": _case(
        "Conv3D",
        {"filters": 4, "kernel_size": 2, "activation": "relu"},
        (4, 4, 4, 2),
        kernel="dhwiu->u",
    ),
    "Conv1DTranspose": _case(
        "Conv1DTranspose", {"filters": 4, "kernel_size": 3, "strides": 2}, (5, 2), kernel="kui->u"
    ),
    "Conv2DTranspose": _case(
        "Conv2DTranspose",
        {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"},
        (4, 4, 2),
        kernel="hwui->u",
    ),
    "Conv3DTranspose": _case(
        "Conv3DTranspose",
        {"filters": 4, "kernel_size": 2, "activation": "relu"},
        (3, 3, 3, 2),
        kernel="dhwui->u",
    ),
    "DepthwiseConv1D": _case(
        "DepthwiseConv1D", {"kernel_size": 3, "depth_multiplier": 2}, (8, 3), kernel="kcm->cm"
    ),
    "DepthwiseConv2D": _case(
        "DepthwiseConv2D",
        {"kernel_size": 3, "depth_multiplier": 1, "activation": "tanh"},
        (5, 5, 3),
        kernel="hwcm->cm",
    ),
    "SeparableConv1D": _case(
        "SeparableConv1D",
        {"filters": 4, "kernel_size": 3, "activation": "relu"},
        (8, 3),
        depthwise_kernel="kcm->cm",
        pointwise_kernel="kiu->u",
    ),
    "SeparableConv2D": _case(
        "SeparableConv2D",
        {"filters": 4, "kernel_size": 3, "depth_multiplier": 2},
        (5, 5, 3),
        depthwise_kernel="hwcm->cm",
        pointwise_kernel="hwiu->u",
    ),
    "EinsumDense": _case(
        "EinsumDense",
        {"equation": "abc,cde->abde", "output_shape": (None, 2, 3), "bias_axes": "de"},
        (3, 4),
        kernel="cde->de",
    ),
    "EinsumDense, units first": _case(
        "EinsumDense",
        {"equation": "...c,dc->...d", "output_shape": (3,), "bias_axes": "d"},
        (4,),
        kernel="dc->d",
    ),
    "MultiHeadAttention": _case(
        "MultiHeadAttention",
        {"num_heads": 2, "key_dim": 3},
        (3, 4),
        (5, 6),
        **_PROJECTIONS,
    ),
    "GroupQueryAttention": _case(
        "GroupQueryAttention",
        {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2},
        (3, 6),
        (5, 6),
        **_PROJECTIONS,
    ),
}

every_layer = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
# Those that hold their one kernel themselves, and on which Keras has LoRA.
every_lora_layer = pytest.mark.parametrize(
    "case",
    [
        case
        for name, case in CASES.items()
        if name.startswith(("Dense", "Conv", "Einsum")) and not name.endswith("Transpose")
    ],
    ids=lambda case: case.plain.__name__,
)
