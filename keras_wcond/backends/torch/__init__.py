from keras_wcond.backends.torch.derivatives import (
    gauss_newton_product,
    gradient,
    hessian_product,
)
from keras_wcond.backends.torch.kernels import equilibrated, without_autocast
from keras_wcond.backends.torch.products import (
    column_equilibrated_product,
    equilibrated_product,
)
from keras_wcond.backends.torch.tensors import (
    files_that_run_again,
    is_autocasting,
    parameter_exchanges,
)

__all__ = [
    "column_equilibrated_product",
    "equilibrated",
    "equilibrated_product",
    "files_that_run_again",
    "gauss_newton_product",
    "gradient",
    "hessian_product",
    "is_autocasting",
    "parameter_exchanges",
    "without_autocast",
]
