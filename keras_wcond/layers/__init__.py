from keras_wcond.layers.conv import ConditionedConv1D, ConditionedConv2D, ConditionedConv3D
from keras_wcond.layers.dense import ConditionedDense

__all__ = ["ConditionedConv1D", "ConditionedConv2D", "ConditionedConv3D", "ConditionedDense"]
