"""The loss along straight lines through the weights."""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_wcond.arguments import positive_integer
from keras_wcond.backends import gradient
from keras_wcond.diagnostics.loss_functions import LossOnData
from keras_wcond.diagnostics.plots import draw_loss_lines
from keras_wcond.diagnostics.progress import tracked


@dataclasses.dataclass(frozen=True)
class LossLines:
    """What `loss_lines()` found.

    Attributes:
        distances: Float array, how far from the weights, over their norm.
        losses: Dict from the direction, `"gradient"` or `"random 1"`, to the loss at each
            distance.
    """

    distances: np.ndarray
    losses: dict[str, np.ndarray]

    def plot(self, path: Any = None) -> Any:
        """Draws the lines.

        Args:
            path: Where to save the picture, or None.

        Returns:
            The `matplotlib.figure.Figure`.
        """
        return draw_loss_lines(self.distances, self.losses, path)


def loss_lines(
    model: keras.Model,
    x: Any,
    y: Any,
    loss: Any = None,
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
        x: Array of inputs, or a structure of arrays.
        y: Array of targets.
        loss: As of `loss_curvature()`.
        distance: Float. How far the lines go to either side, over the norm of the weights.
        points: Integer, odd, so that the weights themselves are one of them.
        random_directions: Integer, how many of them.
        batch_size: As of `loss_curvature()`.
        seed: Integer, of the random directions.

    Returns:
        A `LossLines`.

    Example:

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
