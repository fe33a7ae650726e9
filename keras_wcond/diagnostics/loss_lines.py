"""The loss along straight lines through the weights."""

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_wcond.arguments import positive_integer
from keras_wcond.backends import gradient
from keras_wcond.diagnostics.loss_functions import Loss, LossOnData
from keras_wcond.diagnostics.plots import draw_loss_lines
from keras_wcond.diagnostics.progress import tracked

if TYPE_CHECKING:
    from keras_wcond.diagnostics.plots import Figure


@dataclasses.dataclass(frozen=True)
class LossLines:
    """The loss along straight lines through the weights, by `loss_lines()`.

    Attributes:
        distances: float64 array of shape `(points,)`, the distances from the weights divided by
            the norm of the weights.
        losses: Dict from the name of the direction, `"gradient"`, `"random 1"` and so on, to a
            float64 array of shape `(points,)`, the mean loss at each distance.
    """

    distances: np.ndarray
    losses: dict[str, np.ndarray]

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draws the lines. This needs Matplotlib.

        Args:
            path: File to save the picture to, or None. Defaults to None.

        Returns:
            The `matplotlib.figure.Figure`.
        """
        return draw_loss_lines(self.distances, self.losses, path)


def loss_lines(
    model: keras.Model,
    x: Any,
    y: Any,
    loss: Loss = None,
    distance: float = 0.5,
    points: int = 41,
    random_directions: int = 3,
    batch_size: int | None = None,
    seed: int = 0,
) -> LossLines:
    """The loss along the gradient, and along random directions, through the weights.

    Every direction has the norm of all trainable weights together, so that a distance of 0.1
    changes them by a tenth. The model is only read, and runs as in inference.

    Args:
        model: A built model with one output.
        x: Array of inputs with samples on axis 0, or a structure of such arrays.
        y: Array of targets with samples on axis 0.
        loss: A Keras loss, by name or instance, or a function of `(y_true, y_pred)`. None takes
            the loss that the model was compiled with. Defaults to None.
        distance: Float, the length of the lines to either side, divided by the norm of the
            weights. Defaults to 0.5.
        points: Integer, the number of points on each line. It is odd, so that the weights
            themselves are one of the points. Defaults to 41.
        random_directions: Integer, the number of random directions. Defaults to 3.
        batch_size: Integer, the number of samples per batch, or None for all samples at once.
            Defaults to None.
        seed: Integer, the seed of the random directions. Defaults to 0.

    Returns:
        A `LossLines`.

    Raises:
        ValueError: `points` is even, `random_directions` is negative, the model is not built or
            has no trainable weights, no loss is given, or the gradient is not finite.

    Examples:
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        >>> lines = loss_lines(model, np.ones((2, 1)), np.zeros((2, 1)), "mse", points=3)
        >>> (lines.losses["gradient"] / lines.losses["gradient"][1]).round(2).tolist()
        [0.25, 1.0, 2.25]
    """
    data = LossOnData.of(model, x, y, loss, batch_size)
    if positive_integer("points", points) % 2 == 0:
        raise ValueError(f"Expected `points` to be odd. Received: points={points}")
    if random_directions < 0:
        raise ValueError(
            "Expected `random_directions` to be 0 or more. Received: "
            f"random_directions={random_directions}"
        )
    values = data.values
    start = np.concatenate([np.ravel(keras.ops.convert_to_numpy(v)) for v in values])
    start = start.astype("float64")
    random = np.random.default_rng(seed)
    directions = {"gradient": data.derivative(gradient(data.loss_of_values), values)}
    for i in range(random_directions):
        directions[f"random {i + 1}"] = random.normal(size=start.size)
    distances = np.linspace(-distance, distance, points)
    losses: dict[str, np.ndarray] = {}
    for name, direction in tracked(directions.items(), "Directions", len(directions)):
        norm = np.linalg.norm(direction)
        step = direction * (np.linalg.norm(start) / norm if norm > 0.0 else 0.0)
        losses[name] = np.array(
            [
                float(data.mean(data.loss_of_values, data.split(start + far * step))[0])
                for far in distances
            ]
        )
    return LossLines(distances, losses)
