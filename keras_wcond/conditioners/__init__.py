"""The conditioning methods, and the conversion of names and configs to them."""

from keras_wcond.conditioners.conditioner import Conditioner
from keras_wcond.conditioners.registry import METHODS, deserialize, get, serialize
from keras_wcond.conditioners.sequential import Sequential

# Each import registers a method. Tables list the methods in this order.
# isort: off
from keras_wcond.conditioners.row_equilibration import RowEquilibration as RowEquilibration
from keras_wcond.conditioners.column_equilibration import ColumnEquilibration as ColumnEquilibration
from keras_wcond.conditioners.ruiz_equilibration import RuizEquilibration as RuizEquilibration
from keras_wcond.conditioners.frobenius_normalization import (
    FrobeniusNormalization as FrobeniusNormalization,
)
from keras_wcond.conditioners.weight_standardization import (
    WeightStandardization as WeightStandardization,
)
from keras_wcond.conditioners.spectral_normalization import (
    SpectralNormalization as SpectralNormalization,
)
from keras_wcond.conditioners.newton_step import NewtonStep as NewtonStep
from keras_wcond.conditioners.polynomial_preconditioner import (
    PolynomialPreconditioner as PolynomialPreconditioner,
)
from keras_wcond.conditioners.polar_express import PolarExpress as PolarExpress
from keras_wcond.conditioners.newton_orthogonalization import (
    NewtonOrthogonalization as NewtonOrthogonalization,
)
# isort: on

__all__ = [
    "METHODS",
    "Conditioner",
    "Sequential",
    "deserialize",
    "get",
    "serialize",
    *(method.__name__ for method in METHODS.values()),
]
