"""The layers that share one contract, with inputs for each."""

import dataclasses
from typing import Any

import keras
import pytest

import keras_wcond
from tests.backends import normal


@dataclasses.dataclass(frozen=True)
class Case:
    conditioned: type
    plain: type
    arguments: dict[str, Any]
    input_shape: tuple[int, ...]

    def layer(self, **arguments):
        """The conditioned layer, built."""
        layer = self.conditioned(**{**self.arguments, **arguments})
        layer.build((None, *self.input_shape))
        return layer

    def plain_layer(self, **arguments):
        layer = self.plain(**{**self.arguments, **arguments})
        layer.build((None, *self.input_shape))
        return layer

    def inputs(self, batch=2):
        return normal(batch, *self.input_shape, seed=7)


def _case(name, arguments, input_shape):
    plain = getattr(keras.layers, name)
    return Case(getattr(keras_wcond, f"Conditioned{name}"), plain, arguments, input_shape)


CASES = {
    "Dense": _case("Dense", {"units": 4, "activation": "tanh"}, (3,)),
    "Conv1D": _case("Conv1D", {"filters": 4, "kernel_size": 3, "padding": "causal"}, (8, 2)),
    "Conv2D": _case("Conv2D", {"filters": 4, "kernel_size": 3, "strides": 2}, (7, 7, 2)),
    "Conv2D, groups": _case("Conv2D", {"filters": 4, "kernel_size": 3, "groups": 2}, (5, 5, 6)),
    "Conv3D": _case("Conv3D", {"filters": 4, "kernel_size": 2, "activation": "relu"}, (4, 4, 4, 2)),
}

every_layer = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
