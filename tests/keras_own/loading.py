"""Keras' own tests, from the installed wheel, with our classes in the plain ones' place."""

import types
from unittest import mock

import keras
import pytest
from keras.src import layers

import keras_wcond


def keras_tests(module: str, *names: str, **renamed: str) -> types.ModuleType:
    """A test module of Keras in which `layers.Dense` is our `ConditionedDense`, and so on.

    The classes are in place while the module is imported, when its decorators collect
    parameters, and afterwards in its own `layers` and `keras.layers` only. `renamed` gives the
    public names of classes that have another name inside Keras.
    """
    public = {**{name: name for name in names}, **renamed}
    ours = {name: getattr(keras_wcond, f"Conditioned{public[name]}") for name in public}
    ours_by_public_name = {public[name]: ours[name] for name in public}
    with (
        mock.patch.multiple(layers, **ours),
        mock.patch.multiple(keras.layers, **ours_by_public_name),
    ):
        tests = pytest.importorskip(
            f"keras.src.{module}",
            reason=f"the wheel of Keras {keras.__version__} holds no tests",
            exc_type=ModuleNotFoundError,
        )
        tests.layers = types.SimpleNamespace(**vars(layers))
        public_layers = types.SimpleNamespace(**vars(keras.layers))
        tests.keras = types.SimpleNamespace(**{**vars(keras), "layers": public_layers})
    return tests
