from keras_wcond.models.conversion import condition_model, fold_model

__all__ = ["condition_model", "fold_model"]
