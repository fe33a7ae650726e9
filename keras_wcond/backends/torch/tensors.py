"""Where PyTorch's own ways meet a layer that reads other tensors than its variables hold."""

import functools

import keras
import torch
from torch.utils.checkpoint import CheckpointFunction

# The source files of functions that run what they are given again, for the gradient.
RUN_AGAIN = frozenset({CheckpointFunction.forward.__code__.co_filename})


def files_that_run_again():
    # `torch.compile` cannot look at frames.
    return frozenset() if torch.compiler.is_compiling() else RUN_AGAIN


def is_autocasting(tensor):
    device = getattr(tensor, "device", "cpu")
    return torch.is_autocast_enabled(getattr(device, "type", device))  # NumPy names it.


def parameter_exchanges(layer, variable):
    if not isinstance(layer, keras.layers.TorchModuleWrapper):
        return []
    return [
        functools.partial(_exchange_parameter, module, name)
        for module in layer.module.modules()
        for name, parameter in module._parameters.items()
        if parameter is variable.value
    ]


def _exchange_parameter(module, name, tensor):
    # As `torch.func.functional_call` does, which keeps their order.
    before, module._parameters[name] = module._parameters[name], tensor
    return before
