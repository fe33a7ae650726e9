"""The registry of conditioning methods, and the conversion of names and configs to them."""

import difflib
import inspect
from typing import Any, TypeVar

import keras

from keras_wcond.arguments import snake_case
from keras_wcond.conditioners.conditioner import Conditioner, ConditionerLike

_Method = TypeVar("_Method", bound=type[Conditioner])

# The classes of the methods by the names that `get()` accepts, in the order of tables.
METHODS: dict[str, type[Conditioner]] = {}
# Conditioners that are made of others. A list of conditioners makes one, but no name does.
_COMPOSITIONS: dict[str, Any] = {}


def register(method: _Method) -> _Method:
    """Registers a method of the package under its name, in `METHODS` and with Keras."""
    METHODS[snake_case(method.__name__)] = method
    return _registered_with_keras(method)


def register_composition(method: _Method) -> _Method:
    """Registers a conditioner that is made of others."""
    _COMPOSITIONS[method.__name__] = method
    return _registered_with_keras(method)


def _registered_with_keras(method: _Method) -> _Method:
    registered: _Method = keras.saving.register_keras_serializable(package="keras_wcond")(method)
    return registered


def serialize(conditioner: Conditioner | None) -> dict[str, Any] | None:
    """The config of a conditioner.

    Args:
        conditioner: `Conditioner` or None.

    Returns:
        Dict from which `deserialize()` makes an equal conditioner, or None for None. The dict
        can be written as JSON.
    """
    config: dict[str, Any] | None = keras.saving.serialize_keras_object(conditioner)
    return config


def deserialize(
    config: dict[str, Any] | None, custom_objects: dict[str, Any] | None = None
) -> Conditioner | None:
    """The conditioner of a config from `serialize()`.

    Args:
        config: Dict with the entries `"class_name"` and `"config"`, the constructor's arguments.
            Or None.
        custom_objects: Dict from class names to classes that are not registered with
            `keras.saving.register_keras_serializable()`. Defaults to `None`.

    Returns:
        A `Conditioner`, or None for None.

    Raises:
        TypeError: If the config is that of another object, or none.
    """
    known = {**_by_any_name(), **(custom_objects or {})}
    conditioner = keras.saving.deserialize_keras_object(config, custom_objects=known)
    if conditioner is None or isinstance(conditioner, Conditioner):
        return conditioner
    raise TypeError(_no_conditioner(config))


def get(identifier: ConditionerLike) -> Conditioner | None:
    """The conditioner for a value of an argument such as `kernel_conditioner`.

    Args:
        identifier: A name such as `"row_equilibration"`, a config from `serialize()`, a
            `Conditioner`, a subclass of it, or None. A list of names, configs, conditioners and
            classes makes a `Sequential`, which applies them in the order of the list.

    Returns:
        A `Conditioner`, or None for None.

    Raises:
        ValueError: If no method has the name, or if a `Sequential` is given by its name or class.
        TypeError: If `identifier` is none of these.

    Examples:
        >>> get("row_equilibration")
        RowEquilibration()
    """
    conditioner: Any = identifier
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
    raise TypeError(_no_conditioner(identifier))


def required(identifier: ConditionerLike, owner: str) -> Conditioner:
    """The conditioner of `get()`, or a `ValueError` for None, which `owner` does not accept."""
    conditioner = get(identifier)
    if conditioner is None:
        raise ValueError(
            f"Expected `{owner}` to be given a conditioner. Received: kernel_conditioner=None. "
            f"Leave `{owner}` out to have the plain weights."
        )
    return conditioner


def name_of(conditioner: Conditioner) -> str:
    """The name of a conditioner's method, or its `repr` if arguments are not the defaults."""
    name = snake_case(type(conditioner).__name__)
    is_default = name in METHODS and conditioner == METHODS[name]()
    return name if is_default else repr(conditioner)


def _no_conditioner(identifier: Any) -> str:
    return (
        "Expected a conditioner to be None, the name of a method, a config, an instance of "
        "`keras_wcond.conditioners.Conditioner`, or a list of these. "
        f"Received: {identifier!r} (of type {type(identifier).__name__}). A function becomes a "
        "conditioner as the `condition()` method of a subclass."
    )


def _unknown(name: str) -> str:
    known = ", ".join(repr(known) for known in sorted(METHODS))
    beginning = [known for known in METHODS if name and known.startswith(name.lower())]
    close = beginning or difflib.get_close_matches(name.lower(), METHODS, n=1)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"Expected the name of a conditioner, one of {known}. Received: {name!r}.{hint}"


def _by_any_name() -> dict[str, Any]:
    classes = (*METHODS.values(), *_COMPOSITIONS.values())
    return {**METHODS, **{method.__name__: method for method in classes}}
