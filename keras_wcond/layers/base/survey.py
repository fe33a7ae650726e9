"""A survey of the kernels in a layer or model, and of the layers that condition them."""

import dataclasses

import keras

from keras_wcond.kernels.search import Kernel, holders_within, kernels_within, path_within
from keras_wcond.layers.base.conditioned_kernel import ConditionedKernel
from keras_wcond.layers.base.conditioned_layer import ConditionedLayer


def survey(layer: keras.layers.Layer) -> list[Kernel]:
    """Every kernel in a layer that the table of Keras' layers lists, or that is conditioned.

    Args:
        layer: A layer or model. Kernels of layers that are not built are not found.

    Returns:
        List of kernels. `conditioned_by` of each is set.
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
    """The conditioned kernel of a surveyed kernel's layer, or a plain one if no layer has it."""
    layer = kernel.conditioned_by
    of_layer: tuple[ConditionedKernel, ...] = ()
    if isinstance(layer, ConditionedLayer):
        of_layer = layer.kernels
    plain = ConditionedKernel(kernel, None)
    return next((each for each in of_layer if each.variable is kernel.variable), plain)


def conditioned_layers(layer: keras.layers.Layer) -> list[ConditionedLayer]:
    """The layers in a model that condition kernels.

    Args:
        layer: A Keras model or layer, which is searched at any depth and may be one itself.

    Returns:
        List of `ConditionedLayer`, without those whose `kernel_conditioner` is None.

    Examples:
        >>> from keras_wcond import ConditionedDense
        >>> model = keras.Sequential([ConditionedDense(4), keras.layers.Dense(2)])
        >>> [type(layer).__qualname__ for layer in conditioned_layers(model)]
        ['ConditionedDense']
    """
    inner = (holders[-1] for holders in holders_within(layer))
    return [each for each in inner if _conditions(each)]


def _conditions(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, ConditionedLayer) and layer.kernel_conditioner is not None


def _conditioned_by(layer: keras.layers.Layer) -> list[Kernel]:
    if _conditions(layer):
        return [kernel.kernel for kernel in layer.kernels]
    if isinstance(layer, keras.layers.SpectralNormalization) and layer.built:
        # Keras' own wrapper divides the kernel of the layer inside it.
        return [each for each in kernels_within(layer) if each.variable is layer.kernel]
    return []
