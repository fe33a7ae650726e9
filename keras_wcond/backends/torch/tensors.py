"""PyTorch's features for which a layer has to read other tensors than those of its variables."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import torch
from torch.utils.checkpoint import CheckpointFunction

# The source files of functions that recompute a function for its gradient.
RUN_AGAIN = frozenset({CheckpointFunction.forward.__code__.co_filename})


def files_that_run_again() -> frozenset[str]:
    # `torch.compile` cannot inspect frames.
    return frozenset() if torch.compiler.is_compiling() else RUN_AGAIN


def is_autocasting(tensor: Any) -> bool:
    device = getattr(tensor, "device", "cpu")
    # The `device` of a NumPy array is a string.
    is_enabled: bool = torch.is_autocast_enabled(getattr(device, "type", device))
    return is_enabled


def parameter_exchanges(
    layer: keras.layers.Layer, variable: keras.Variable
) -> list[Callable[[torch.Tensor], torch.Tensor | None]]:
    if not isinstance(layer, keras.layers.TorchModuleWrapper):
        return []
    return [
        functools.partial(_exchange_parameter, module, name)
        for module in layer.module.modules()
        for name, parameter in module._parameters.items()
        if parameter is variable.value
    ]


def _exchange_parameter(
    module: torch.nn.Module, name: str, tensor: torch.Tensor
) -> torch.Tensor | None:
    # `torch.func.functional_call` does the same, which keeps the order of the parameters.
    parameters: Any = module._parameters
    before: torch.Tensor | None = parameters[name]
    parameters[name] = tensor
    return before
