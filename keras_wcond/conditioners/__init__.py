"""The conditioning methods, and how they are named in arguments and configs."""

import difflib
import inspect
from typing import Any

import keras

from keras_wcond.conditioners.column_equilibration import ColumnEquilibration
from keras_wcond.conditioners.conditioner import Conditioner
from keras_wcond.conditioners.frobenius_normalization import FrobeniusNormalization
from keras_wcond.conditioners.newton_orthogonalization import NewtonOrthogonalization
from keras_wcond.conditioners.polynomial_preconditioner import PolynomialPreconditioner
from keras_wcond.conditioners.row_equilibration import RowEquilibration
from keras_wcond.conditioners.ruiz_equilibration import RuizEquilibration
from keras_wcond.conditioners.sequential import Sequential
from keras_wcond.conditioners.spectral_normalization import SpectralNormalization
from keras_wcond.conditioners.weight_standardization import WeightStandardization
from keras_wcond.naming import snake_case

__all__ = [
    "ColumnEquilibration",
    "Conditioner",
    "FrobeniusNormalization",
    "NewtonOrthogonalization",
    "PolynomialPreconditioner",
    "RowEquilibration",
    "RuizEquilibration",
    "Sequential",
    "SpectralNormalization",
    "WeightStandardization",
    "deserialize",
    "get",
    "serialize",
]

METHODS: tuple[type[Conditioner], ...] = (
    RowEquilibration,
    ColumnEquilibration,
    RuizEquilibration,
    FrobeniusNormalization,
    WeightStandardization,
    SpectralNormalization,
    PolynomialPreconditioner,
    NewtonOrthogonalization,
)
_BY_NAME = {snake_case(method.__name__): method for method in METHODS}
_BY_CLASS_NAME = {method.__name__: method for method in (*METHODS, Sequential)}


def serialize(conditioner: Conditioner | None) -> dict[str, Any] | None:
    """The config from which `deserialize()` makes an equal conditioner."""
    return keras.saving.serialize_keras_object(conditioner)


def deserialize(
    config: dict[str, Any] | None, custom_objects: dict[str, Any] | None = None
) -> Conditioner | None:
    """The conditioner of a config made by `serialize()`.

    Args:
        config: Dict with at least `"class_name"`, and `"config"` with the constructor's
            arguments; or None.
        custom_objects: Dict from class names to classes that are not registered with
            `keras.saving.register_keras_serializable()`.
    """
    known = {**_BY_NAME, **_BY_CLASS_NAME, **(custom_objects or {})}
    return keras.saving.deserialize_keras_object(config, custom_objects=known)


def get(identifier: Any) -> Conditioner | None:
    """The conditioner that an argument such as `kernel_conditioner` stands for.

    Args:
        identifier: None, a name such as `"row_equilibration"`, a config made by
            `serialize()`, a `Conditioner` or a subclass of it; or a list of these, which
            are applied one after the other.

    Returns:
        A `Conditioner`, or None for None.

    Example:

    >>> get("row_equilibration")
    RowEquilibration()
    """
    conditioner = identifier
    if isinstance(identifier, str):
        conditioner = {**_BY_NAME, **_BY_CLASS_NAME}.get(identifier)
        if conditioner is None:
            raise ValueError(_unknown(identifier))
    elif isinstance(identifier, dict):
        conditioner = deserialize(identifier)
    elif isinstance(identifier, (list, tuple)):
        conditioner = Sequential(identifier)
    if conditioner is Sequential:
        raise ValueError(
            "Expected the conditioners that a `Sequential` is made of. Received: "
            f"{identifier!r}. Give a list of them in its place."
        )
    if inspect.isclass(conditioner) and issubclass(conditioner, Conditioner):
        conditioner = conditioner()
    if conditioner is None or isinstance(conditioner, Conditioner):
        return conditioner
    raise TypeError(
        "Expected a conditioner to be None, the name of a method, a config, an instance of "
        "`keras_wcond.conditioners.Conditioner`, or a list of these. "
        f"Received: {identifier!r} (of type "
        f"{type(identifier).__name__}). A function becomes a conditioner as the `condition()` "
        "method of a subclass."
    )


def name_of(conditioner: Conditioner) -> str:
    """The name of a conditioner's method, with arguments where they are not the default."""
    name = snake_case(type(conditioner).__name__)
    is_default = name in _BY_NAME and conditioner == _BY_NAME[name]()
    return name if is_default else repr(conditioner)


def _unknown(name: str) -> str:
    known = ", ".join(repr(known) for known in sorted(_BY_NAME))
    beginning = [known for known in _BY_NAME if name and known.startswith(name.lower())]
    close = beginning or difflib.get_close_matches(name.lower(), _BY_NAME, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Expected the name of a conditioner, one of {known}. Received: {name!r}.{hint}"
