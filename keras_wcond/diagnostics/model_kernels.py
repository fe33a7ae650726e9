"""The kernels of a model as they are stored, and as the model multiplies by them."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from keras_wcond.conditioners import Conditioner
from keras_wcond.kernel_search import Kernel, kernels_within, path_within, with_unique_paths
from keras_wcond.layers import Conditioned
from keras_wcond.layers.conditioned_layer import ConditionedLayer
from keras_wcond.layers.folding import conditioned_layers
from keras_wcond.layers.lora import merged


@dataclasses.dataclass(frozen=True)
class ModelKernel:
    """A kernel of a model.

    Args:
        kernel: The kernel, its path that within the model.
        conditioned_by: The layer that conditions it, or None.
        name: Its path within that layer.
    """

    kernel: Kernel
    conditioned_by: ConditionedLayer | None = None
    name: str = ""

    @property
    def conditioner(self) -> Conditioner | None:
        return self.conditioned_by.kernel_conditioner if self.conditioned_by else None


def model_kernels(model: keras.layers.Layer) -> list[ModelKernel]:
    """Every kernel of a built model or layer that is known, or conditioned.

    Embeddings are among them only where they are conditioned.
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(
            "Expected a Keras model or layer. Received: "
            f"{model!r} (of type {type(model).__name__}). Load a model from its file with "
            "`keras.saving.load_model()` first."
        )
    unbuilt = [layer.name for layer in conditioned_layers(model) if not layer.built]
    if unbuilt:
        raise ValueError(
            "Expected a model whose conditioned layers are built. Received: "
            f"model={model.name!r}, in which {unbuilt} are not. Call it on data once first."
        )
    found = {
        id(kernel.variable): ModelKernel(kernel)
        for kernel in kernels_within(model)
        if not isinstance(kernel.owner, keras.layers.Embedding)
    }
    layouts = {id(kernel.variable): kernel for kernel in kernels_within(model)}
    for layer in conditioned_layers(model):
        if isinstance(layer, Conditioned):
            layouts.update((id(kernel.variable), kernel) for kernel in layer.kernels)
        for name, variable in layer.raw_kernels.items():
            path = path_within(model, variable)
            kernel = dataclasses.replace(layouts[id(variable)], path=path)
            found[id(variable)] = ModelKernel(kernel, layer, name)
    if not found:
        raise ValueError(
            "Expected a built model with kernels that `keras_wcond` knows. Received: "
            f"model={model.name!r} of type {type(model).__qualname__}, "
            f"{'built' if model.built else 'not built'}, with {len(model.weights)} weights, none "
            "of which is one. Build it, or condition kernels of your own with "
            "`Conditioned(weights=...)`."
        )
    unique = with_unique_paths([entry.kernel for entry in found.values()])
    return [
        dataclasses.replace(entry, kernel=kernel)
        for entry, kernel in zip(found.values(), unique, strict=True)
    ]


def values(kernels: list[ModelKernel]) -> Iterator[tuple[ModelKernel, Any, Any]]:
    """Each kernel with its raw value, and the tensor that the model multiplies by.

    These are one and the same tensor where nothing conditions the kernel.
    """
    layer, conditioned = None, {}
    for entry in kernels:
        # With a low-rank update, which is what is conditioned.
        raw = merged(entry.kernel.owner, entry.kernel.variable)
        raw = raw.value if isinstance(raw, keras.Variable) else raw
        if entry.conditioned_by is None:
            yield entry, raw, raw
            continue
        # All kernels of a layer are conditioned at once, and come one after the other.
        if layer is not entry.conditioned_by:
            layer, conditioned = entry.conditioned_by, entry.conditioned_by.conditioned_kernels
        yield entry, raw, conditioned[entry.name]
