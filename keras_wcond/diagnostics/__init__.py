from keras_wcond.diagnostics.convolution import convolution_operator_norm
from keras_wcond.diagnostics.curvature import LossCurvature, loss_curvature
from keras_wcond.diagnostics.loss_lines import LossLines, loss_lines
from keras_wcond.diagnostics.report import ConditioningReport, conditioning_report
from keras_wcond.diagnostics.spectrum import (
    condition_number,
    effective_condition_number,
    singular_values,
    stable_rank,
)

__all__ = [
    "ConditioningReport",
    "LossCurvature",
    "LossLines",
    "condition_number",
    "conditioning_report",
    "convolution_operator_norm",
    "effective_condition_number",
    "loss_curvature",
    "loss_lines",
    "singular_values",
    "stable_rank",
]
