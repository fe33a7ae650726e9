"""The package's conditioning methods, and how they are named in arguments and configs."""

import difflib
import inspect
from typing import Any, TypeVar

import keras

from keras_wcond.conditioners.conditioner import Conditioner
from keras_wcond.naming import snake_case

_Method = TypeVar("_Method", bound=type[Conditioner])

METHODS: dict[str, type[Conditioner]] = {}
_COMPOSITIONS: dict[str, Any] = {}


def register(method: _Method) -> _Method:
    """Registers a method of the package by its name, and with Keras."""
    METHODS[snake_case(method.__name__)] = method
    return keras.saving.register_keras_serializable(package="keras_wcond")(method)


def register_composition(method: _Method) -> _Method:
    """Registers a conditioner made of others, which its name alone does not say."""
    _COMPOSITIONS[method.__name__] = method
    return keras.saving.register_keras_serializable(package="keras_wcond")(method)


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
    known = {**_by_any_name(), **(custom_objects or {})}
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
        conditioner = _by_any_name().get(identifier)
        if conditioner is None:
            raise ValueError(_unknown(identifier))
    elif isinstance(identifier, dict):
        conditioner = deserialize(identifier)
    elif isinstance(identifier, (list, tuple)):
        conditioner = _COMPOSITIONS["Sequential"](identifier)
    if conditioner in _COMPOSITIONS.values():
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


def required(identifier: Any, owner: str) -> Conditioner:
    """The conditioner, where None would leave its owner without a purpose."""
    conditioner = get(identifier)
    if conditioner is None:
        raise ValueError(
            f"Expected `{owner}` to be given a conditioner. Received: kernel_conditioner=None. "
            f"Leave `{owner}` out to have the plain weights."
        )
    return conditioner


def name_of(conditioner: Conditioner) -> str:
    """The name of a conditioner's method, with arguments where they are not the default."""
    name = snake_case(type(conditioner).__name__)
    is_default = name in METHODS and conditioner == METHODS[name]()
    return name if is_default else repr(conditioner)


def _unknown(name: str) -> str:
    known = ", ".join(repr(known) for known in sorted(METHODS))
    beginning = [known for known in METHODS if name and known.startswith(name.lower())]
    close = beginning or difflib.get_close_matches(name.lower(), METHODS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Expected the name of a conditioner, one of {known}. Received: {name!r}.{hint}"


def _by_any_name():
    classes = (*METHODS.values(), *_COMPOSITIONS.values())
    return {**METHODS, **{method.__name__: method for method in classes}}
