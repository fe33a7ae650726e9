from keras_wcond.layers.attention import (
    ConditionedGroupQueryAttention,
    ConditionedMultiHeadAttention,
)
from keras_wcond.layers.base.conditioned_layer import ConditionedLayer
from keras_wcond.layers.base.survey import conditioned_layers
from keras_wcond.layers.conditioned import Conditioned
from keras_wcond.layers.conv import (
    ConditionedConv1D,
    ConditionedConv2D,
    ConditionedConv3D,
)
from keras_wcond.layers.conv_transpose import (
    ConditionedConv1DTranspose,
    ConditionedConv2DTranspose,
    ConditionedConv3DTranspose,
)
from keras_wcond.layers.dense import ConditionedDense
from keras_wcond.layers.depthwise_conv import (
    ConditionedDepthwiseConv1D,
    ConditionedDepthwiseConv2D,
)
from keras_wcond.layers.einsum_dense import ConditionedEinsumDense
from keras_wcond.layers.separable_conv import (
    ConditionedSeparableConv1D,
    ConditionedSeparableConv2D,
)

__all__ = [
    "Conditioned",
    "ConditionedConv1D",
    "ConditionedConv1DTranspose",
    "ConditionedConv2D",
    "ConditionedConv2DTranspose",
    "ConditionedConv3D",
    "ConditionedConv3DTranspose",
    "ConditionedDense",
    "ConditionedDepthwiseConv1D",
    "ConditionedDepthwiseConv2D",
    "ConditionedEinsumDense",
    "ConditionedGroupQueryAttention",
    "ConditionedLayer",
    "ConditionedMultiHeadAttention",
    "ConditionedSeparableConv1D",
    "ConditionedSeparableConv2D",
    "conditioned_layers",
]
