"""3D shape: a coordinate network predicts whether a point is inside a solid.

The network learns binary occupancy by cross-entropy, from points near the surface and elsewhere.
Weights are normalized in the hidden layers except the first one, which sets the bandwidth. The
last layer stays plain. The data are any watertight mesh, or a solid made here. The script trains
one model for each of --normalizations, prints a table, and saves the learned surfaces and a
picture of them beside the true one. Set KERAS_BACKEND to choose the Keras backend.
"""

import dataclasses
import pathlib
import sys

import keras
import numpy as np
import tyro
from keras import layers, ops

from common import command_line, coordinates, figures, normalizations, solids, training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(coordinates.CoordinateOptions):
    """A network of coordinates, its solid and its training."""

    mesh: pathlib.Path | None = None
    """A mesh file, such as .obj, .ply, .stl; a ball of a gyroid if none."""
    points: int = 200_000
    """How many to learn from, half of them near the surface."""
    test_points: int = 100_000
    """How many, uniform in space, the intersection over union is measured on."""
    resolution: int = 96
    """Of the grid that the learned surface is found on."""


@dataclasses.dataclass(frozen=True)
class Solid:
    """A solid, and points with whether they are inside: (n, 3) and (n, 1), float32.

    Args:
        mesh: The solid.
        train: Half of them near the surface.
        validation: Uniform in [−1, 1]³.
        test: Likewise.
    """

    mesh: object
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def load_data(options: Options) -> Solid:
    """The solid that the options name, and its points."""
    mesh = solids.load(options.mesh)
    rng = np.random.default_rng(0)

    def points(count, near_surface):
        where, inside = solids.sample(mesh, count, rng, near_surface)
        return where, inside[:, None].astype("float32")

    return Solid(
        mesh,
        train=points(options.points, 0.5),
        validation=points(options.test_points // 5, 0.0),
        test=points(options.test_points, 0.0),
    )


def build(normalization: str, data: Solid, options: Options) -> keras.Model:
    """A network under a normalization, such as "row_equilibration": (n, 3) to logits (n, 1)."""
    chosen = normalizations.parse(normalization)
    constraint = normalizations.kernel_constraint(chosen)
    inputs = x = keras.Input((3,))
    for index in range(options.depth):
        name = f"hidden_{index}" if index else "first"
        x = coordinates.hidden(x, options, name, index == 0, constraint)
        norm = normalizations.activation_normalization(chosen)
        x = x if norm is None else norm(x)
    model = keras.Model(inputs, layers.Dense(1, name="head")(x))
    return normalizations.with_weight_normalization(
        model, chosen, "hidden_*", options.gain, options.trainable_gain, options.penalty
    )


def train(model, data: Solid, options: Options, callbacks=()):
    """Trains by cross-entropy on random points; returns losses and IoU of each epoch."""
    if not model.compiled:
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(
            training.optimizer(options, model),
            loss,
            metrics=[IntersectionOverUnion()],
            steps_per_execution=options.steps_per_execution,
        )
    batches = coordinates.RandomBatches(data.train, options)
    return training.fit(
        model,
        batches,
        options,
        callbacks,
        validation_data=training.even_part(data.validation),
        validation_batch_size=training.shared_evenly(10_000),
    )


@keras.saving.register_keras_serializable("keras_wcond_examples")
class IntersectionOverUnion(keras.metrics.Metric):
    """Of the points that logits (n, 1) above 0 call inside with those that are; all count alike.

    What `keras.metrics.BinaryIoU` computes for the class 1, whose confusion matrix is a loop over
    all points on PyTorch.
    """

    def __init__(self, name="iou", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.intersection = self.add_variable((), "zeros", name="intersection")
        self.union = self.add_variable((), "zeros", name="union")

    def update_state(self, y_true, y_pred, sample_weight=None):
        inside, learned = ops.cast(y_true, "bool"), y_pred > 0.0
        for variable, points in (
            (self.intersection, ops.logical_and(inside, learned)),
            (self.union, ops.logical_or(inside, learned)),
        ):
            variable.assign_add(ops.sum(ops.cast(points, variable.dtype)))

    def result(self):
        return self.intersection / ops.maximum(self.union, 1.0)


def evaluate(model, data: Solid, options: Options, part="test"):
    """IoU on uniform points, and the Chamfer distance between the surfaces."""
    points, inside = getattr(data, part)
    learned = training.predict(model, points, 10_000) > 0.0
    union = (learned | (inside > 0.5)).sum()
    scores = {"IoU": float((learned & (inside > 0.5)).sum() / max(union, 1))}
    surface = reconstruct(model, options)
    distance = np.inf if surface is None else solids.chamfer_distance(data.mesh, surface)
    return {**scores, "Chamfer distance": float(distance)}


def reconstruct(model, options: Options):
    """The surface that a model learned, by marching cubes, or None where there is none."""
    axis = np.linspace(-1.0, 1.0, options.resolution)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    logits = training.predict(model, grid.astype("float32"), 32_768)
    logits = logits.astype("float32").reshape((len(axis),) * 3)
    if not logits.min() < 0.0 < logits.max():
        return None
    return solids.surface(logits, 0.0, axis)


def draw(runs, data: Solid, options: Options):
    """The true surface, those learned, and curves; saves the surfaces as PLY files."""
    figure, axes = figures.figure(2 + len(runs), size=3.0)
    pictures = {"the solid": solids.picture(data.mesh)}
    for name, run in runs.items():
        surface = reconstruct(run.model, options)
        label = f"{name}\nIoU {run.scores['IoU']:.3f}"
        pictures[label] = np.ones((2, 2)) if surface is None else solids.picture(surface)
        if surface is not None:
            options.output.mkdir(parents=True, exist_ok=True)
            surface.export(options.output / f"shape-{name}.ply")
    for ax, (label, picture) in zip(axes, pictures.items(), strict=False):
        ax.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0)
        ax.set_title(label, fontsize=9)
        ax.set_axis_off()
    figures.draw_curves(axes[-1], runs, "val_iou", "IoU on validation points")
    return figure


RECIPES = {
    "gyroid": (
        "A ball of a gyroid that is made on the spot.",
        Options(epochs=15, batch_size=2048, optimizer="adamw", learning_rate=3e-3, warmup_epochs=1),
    ),
    "mesh": (
        "A scanned mesh of some ten thousand faces: --mesh solid.obj.",
        Options(
            mesh=tyro.MISSING, epochs=20, batch_size=4096, optimizer="adamw", learning_rate=3e-3,
            gaussian_width=0.1,
        ),
    ),
    "scan": (
        "A large scan at full detail: --mesh statue.ply.",
        Options(
            mesh=tyro.MISSING, width=256, depth=5, epochs=200, steps_per_epoch=500,
            batch_size=100_000, points=10_000_000, test_points=1_000_000, optimizer="adamw",
            learning_rate=1e-3, warmup_epochs=2, gaussian_width=0.1, resolution=512,
        ),
    ),
}  # fmt: skip

if __name__ == "__main__":
    command_line.main(sys.modules[__name__])
