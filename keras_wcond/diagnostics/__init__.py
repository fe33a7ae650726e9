from keras_wcond.diagnostics.spectrum import (
    condition_number,
    effective_condition_number,
    singular_values,
    stable_rank,
)

__all__ = ["condition_number", "effective_condition_number", "singular_values", "stable_rank"]
