"""The loss of a model as a function of its weights."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_wcond.arguments import positive_integer
from keras_wcond.internals import loss_as_compiled, mask_of
from keras_wcond.linalg.arrays import Tensor
from keras_wcond.linalg.held_constant import exact_derivatives

# A name, an instance, a function of `(y_true, y_pred)`, or None for that of a compiled model.
Loss: TypeAlias = str | keras.losses.Loss | Callable[[Any, Any], Any] | None


@dataclasses.dataclass(frozen=True)
class LossOnData:
    """A model's mean loss on data, as a function of its trainable weights.

    The model runs as in inference: no dropout, and moving statistics in batch normalization.
    What layers add to the loss, such as penalties of regularizers, is left out.

    Args:
        model: A built model with one output.
        x: Array, or a structure of arrays with a batch axis.
        y: Array of targets.
        loss: Function of `(y_true, y_pred)`.
        batch_size: The number of samples per batch. The result is the same if the loss is a mean
            over samples.
    """

    model: keras.Model
    x: Any
    y: Any
    loss: Callable[..., Any]
    batch_size: int

    @classmethod
    def of(
        cls, model: keras.Model, x: Any, y: Any, loss: Loss, batch_size: int | None
    ) -> "LossOnData":
        """The loss for arguments of the user, which are checked."""
        if loss is None:
            loss = getattr(model, "loss", None) if model.compiled else None
        if loss is None:
            raise ValueError(
                "Expected a loss, or a compiled model that has one. Received: loss=None, "
                f"model={model.name!r}. Pass `loss='sparse_categorical_crossentropy'` or the like."
            )
        if not model.built or not model.trainable_variables:
            raise ValueError(
                "Expected a built model with trainable weights. Received: "
                f"model={model.name!r}, with {len(model.trainable_variables)} of them."
            )
        x, y = keras.tree.map_structure(np.asarray, (x, y))
        samples = {len(array) for array in keras.tree.flatten((x, y))}
        if len(samples) != 1 or 0 in samples:
            raise ValueError(
                "Expected `x` and `y` with one and the same number of samples, at least one. "
                f"Received: {sorted(samples)} samples."
            )
        if batch_size is not None:
            positive_integer("batch_size", batch_size)
        return cls(model, x, y, loss_as_compiled(loss), batch_size or samples.pop())

    @property
    def values(self) -> list[Tensor]:
        """The present values of the trainable weights."""
        return [variable.value for variable in self.model.trainable_variables]

    def outputs(self, values: Sequence[Tensor], x: Any, y: Any) -> Tensor:
        fixed = [variable.value for variable in self.model.non_trainable_variables]
        with exact_derivatives():
            outputs, _ = self.model.stateless_call(values, fixed, x, training=False)
        if not hasattr(outputs, "shape"):
            raise ValueError(
                "Expected a model with one tensor as its output. Received: "
                f"model={self.model.name!r}, with {len(keras.tree.flatten(outputs))} outputs in a "
                f"{type(outputs).__name__}. Make a model of the one that is looked at."
            )
        return outputs

    def detached_outputs(self, values: Sequence[Tensor], x: Any, y: Any) -> Tensor:
        """The outputs without the attributes that Keras attaches to them.

        Keras attaches masks and, on TensorFlow, logits to outputs. Losses read these.

        Args:
            values: The trainable weights.
            x: A batch of inputs.
            y: A batch of targets, which is not used.

        Returns:
            Tensor, the output of the model.

        Raises:
            ValueError: The output has a mask.
        """
        outputs = self.outputs(values, x, y)
        if mask_of(outputs) is not None:
            raise ValueError(
                "Expected outputs without a mask, which a loss of the outputs alone cannot heed. "
                f"Received: matrix='gauss_newton', model={self.model.name!r}. Take 'hessian'."
            )
        return 1.0 * outputs

    def loss_of_outputs(self, outputs: Tensor, x: Any, y: Any) -> Tensor:
        return ops.mean(self.loss(y, outputs))

    def loss_of_values(self, values: Sequence[Tensor], x: Any, y: Any) -> Tensor:
        return self.loss_of_outputs(self.outputs(values, x, y), x, y)

    def batches(self) -> Iterator[tuple[float, tuple[Any, Any]]]:
        """Each batch of inputs and targets, and its share of all samples."""
        total = len(keras.tree.flatten(self.y)[0])
        for start in range(0, total, self.batch_size):
            end = min(start + self.batch_size, total)
            data = keras.tree.map_structure(
                lambda array, part=slice(start, end): ops.convert_to_tensor(array[part]),
                (self.x, self.y),
            )
            yield (end - start) / total, data

    def mean(self, function: Callable[..., Any], *arguments: Any) -> np.ndarray:
        """The mean over samples of a function of `(*arguments, x, y)`, as one flat vector."""
        total = np.zeros(())
        for share, data in self.batches():
            parts = keras.tree.flatten(function(*arguments, *data))
            arrays = [np.ravel(ops.convert_to_numpy(part)).astype("float64") for part in parts]
            total = total + share * np.concatenate(arrays)
        return total

    def derivative(self, function: Callable[..., Any], *arguments: Any) -> np.ndarray:
        """The result of `mean()`, or an error if it is not finite."""
        total = self.mean(function, *arguments)
        if not np.isfinite(total).all():
            raise ValueError(
                "Expected a loss with finite derivatives. Received: "
                f"model={self.model.name!r} and data where they are not. Look for NaN and "
                "infinity in weights (`conditioning_report`), inputs and targets."
            )
        return total

    def split(self, vector: np.ndarray) -> list[Tensor]:
        """A flat vector in the shapes of the trainable weights."""
        tensors, start = [], 0
        for variable in self.model.trainable_variables:
            end = start + int(np.prod(variable.shape))
            part = vector[start:end].reshape(variable.shape)
            dtype = keras.backend.standardize_dtype(variable.value.dtype)
            tensors.append(ops.convert_to_tensor(part, dtype=dtype))
            start = end
        return tensors
