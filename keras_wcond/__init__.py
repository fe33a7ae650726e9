"""Weight conditioning for Keras 3: better-conditioned weights on every backend."""

from keras_wcond import conditioners
from keras_wcond.callbacks import ConditioningMonitor, FoldConditioning
from keras_wcond.constraints import WeightConditioning
from keras_wcond.diagnostics import (
    ConditioningReport,
    LossCurvature,
    LossLines,
    condition_number,
    conditioning_report,
    convolution_operator_norm,
    effective_condition_number,
    loss_curvature,
    loss_lines,
    singular_values,
    stable_rank,
)
from keras_wcond.gains import activation_gain
from keras_wcond.initializers import ConditionedInitializer
from keras_wcond.kernels.layout import KernelLayout
from keras_wcond.layers import (
    Conditioned,
    ConditionedConv1D,
    ConditionedConv1DTranspose,
    ConditionedConv2D,
    ConditionedConv2DTranspose,
    ConditionedConv3D,
    ConditionedConv3DTranspose,
    ConditionedDense,
    ConditionedDepthwiseConv1D,
    ConditionedDepthwiseConv2D,
    ConditionedEinsumDense,
    ConditionedGroupQueryAttention,
    ConditionedLayer,
    ConditionedMultiHeadAttention,
    ConditionedSeparableConv1D,
    ConditionedSeparableConv2D,
    conditioned_layers,
)
from keras_wcond.models import condition_model, fold_model
from keras_wcond.optimizers import condition_optimizer

__version__ = "0.1.0"

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
    "ConditionedInitializer",
    "ConditionedLayer",
    "ConditionedMultiHeadAttention",
    "ConditionedSeparableConv1D",
    "ConditionedSeparableConv2D",
    "ConditioningMonitor",
    "ConditioningReport",
    "FoldConditioning",
    "KernelLayout",
    "LossCurvature",
    "LossLines",
    "WeightConditioning",
    "activation_gain",
    "condition_model",
    "condition_number",
    "condition_optimizer",
    "conditioned_layers",
    "conditioners",
    "conditioning_report",
    "convolution_operator_norm",
    "effective_condition_number",
    "fold_model",
    "loss_curvature",
    "loss_lines",
    "singular_values",
    "stable_rank",
]
