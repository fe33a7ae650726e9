"""The kernels of a model: the stored kernels, and those that the model multiplies by."""

import dataclasses

import keras
import numpy as np

from keras_wcond.conditioners import Conditioner
from keras_wcond.diagnostics.spectrum import machine_epsilon
from keras_wcond.internals import full_precision
from keras_wcond.kernels.search import Kernel, with_unique_paths
from keras_wcond.layers.base.conditioned_layer import ConditionedLayer
from keras_wcond.layers.base.survey import conditioned_kernel, conditioned_layers, survey
from keras_wcond.linalg.arrays import Tensor


def model_kernels(model: keras.layers.Layer) -> list[Kernel]:
    """Every kernel of a model that the table of Keras' layers lists, or that is conditioned.

    Embeddings are included only if they are conditioned.

    Args:
        model: A built model or layer.

    Returns:
        List of at least one kernel. Their paths are unique.

    Raises:
        TypeError: The argument is not a Keras layer.
        ValueError: The model has conditioned layers that are not built, or no kernel.
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
    found = [kernel for kernel in survey(model) if not _is_plain_embedding(kernel)]
    if not found:
        raise ValueError(
            "Expected a built model with kernels that `keras_wcond` knows. Received: "
            f"model={model.name!r} of type {type(model).__qualname__}, "
            f"{'built' if model.built else 'not built'}, with {len(model.weights)} weights, none "
            "of which is one. Build it, or condition kernels of your own with "
            "`Conditioned(weights=...)`."
        )
    return with_unique_paths(found)


def conditioner_of(kernel: Kernel) -> Conditioner | None:
    """The method that conditions a kernel, or None."""
    layer = kernel.conditioned_by
    return layer.kernel_conditioner if isinstance(layer, ConditionedLayer) else None


@dataclasses.dataclass(frozen=True)
class KernelValues:
    """The values of a kernel.

    Attributes:
        raw: float64 array of shape `(matrices, rows, columns)`, the stored kernel, or with LoRA
            the merged one.
        effective: The kernel that the model multiplies by, of the same shape. It is the same
            array if nothing conditions the kernel.
        epsilon: The machine epsilon of the dtype that the kernel is stored in.
    """

    raw: np.ndarray
    effective: np.ndarray
    epsilon: float


def values(kernel: Kernel) -> KernelValues:
    """The present values of a kernel."""
    found = conditioned_kernel(kernel)
    raw = _matrices(found.raw(), kernel)
    effective = raw if conditioner_of(kernel) is None else _matrices(found.effective(), kernel)
    with full_precision():
        return KernelValues(raw, effective, machine_epsilon(kernel.variable.value.dtype))


def _is_plain_embedding(kernel: Kernel) -> bool:
    return isinstance(kernel.owner, keras.layers.Embedding) and kernel.conditioned_by is None


def _matrices(tensor: Tensor, kernel: Kernel) -> np.ndarray:
    array = keras.ops.convert_to_numpy(tensor).astype("float64")
    matrices: np.ndarray = kernel.layout.to_matrices(array)
    return matrices
