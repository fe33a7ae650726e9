"""Which kernels a layer or model has, and which layer conditions each."""

import dataclasses

import keras

from keras_wcond.kernels.search import Kernel, holders_within, kernels_within, path_within
from keras_wcond.layers.base.conditioned_kernel import ConditionedKernel
from keras_wcond.layers.base.conditioned_layer import ConditionedLayer


def survey(layer: keras.layers.Layer) -> list[Kernel]:
    """Every kernel in a layer that is known by its layer's class, or conditioned.

    Args:
        layer: A layer or model, of which what is built is found.
    """
    found = {id(kernel.variable): kernel for kernel in kernels_within(layer)}
    for holders in holders_within(layer):
        inner = holders[-1]
        # The innermost layer is visited last, as a projection is after the attention layer.
        for kernel in _conditioned_by(inner):
            known = found.get(id(kernel.variable), kernel)
            found[id(kernel.variable)] = dataclasses.replace(
                known,
                layout=kernel.layout,
                path=path_within(layer, kernel.variable),
                conditioned_by=inner,
            )
    return list(found.values())


def conditioned_kernel(kernel: Kernel) -> ConditionedKernel:
    """A surveyed kernel as the layer that conditions it has it, or plain where none does."""
    layer = kernel.conditioned_by
    of_layer = layer.kernels if isinstance(layer, ConditionedLayer) else ()
    plain = ConditionedKernel(kernel, None)
    return next((each for each in of_layer if each.variable is kernel.variable), plain)


def conditioned_layers(layer: keras.layers.Layer) -> list[ConditionedLayer]:
    """The layer itself and all it holds, as far as they condition kernels."""
    inner = (holders[-1] for holders in holders_within(layer))
    return [each for each in inner if _conditions(each)]


def _conditions(layer):
    return isinstance(layer, ConditionedLayer) and layer.kernel_conditioner is not None


def _conditioned_by(layer):
    if _conditions(layer):
        return [kernel.kernel for kernel in layer.kernels]
    if isinstance(layer, keras.layers.SpectralNormalization) and layer.built:
        # Keras' own wrapper, which divides the kernel that it holds.
        return [each for each in kernels_within(layer) if each.variable is layer.kernel]
    return []
