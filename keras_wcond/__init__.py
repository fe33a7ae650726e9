"""Weight conditioning for Keras 3: better-conditioned weights on every backend."""

from keras_wcond import conditioners
from keras_wcond.constraints import WeightConditioning
from keras_wcond.diagnostics import (
    condition_number,
    effective_condition_number,
    singular_values,
    stable_rank,
)
from keras_wcond.initializers import ConditionedInitializer
from keras_wcond.layers import (
    ConditionedConv1D,
    ConditionedConv2D,
    ConditionedConv3D,
    ConditionedDense,
)

__version__ = "0.1.0"

__all__ = [
    "ConditionedConv1D",
    "ConditionedConv2D",
    "ConditionedConv3D",
    "ConditionedDense",
    "ConditionedInitializer",
    "WeightConditioning",
    "condition_number",
    "conditioners",
    "effective_condition_number",
    "singular_values",
    "stable_rank",
]
