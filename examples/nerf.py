"""Neural radiance fields: views of a scene, learned from photographs with known cameras.

A coordinate network predicts density and color at each point. A coarse network finds the relevant
points on a ray, and a fine network renders the colors of pixels from them (Mildenhall et al.
2020). Weights are normalized in the hidden layers except the first one, which sets the bandwidth.
The layers for density and color stay plain. Three details differ from that work: density is a
shifted softplus, no further layer lies between the trunk and the color, and unbounded scenes are
sampled evenly in inverse distance. The data are folders in the layout of Blender's scenes or of
LLFF, or a small traced scene. The script trains one model for each of --normalizations, prints a
table, and saves a picture of held-out views and depths. Set KERAS_BACKEND to choose the Keras
backend.
"""

import dataclasses
import pathlib
import sys
from typing import Literal

import keras
import numpy as np
import tyro
from keras import layers

from common import command_line, coordinates, figures, normalizations, scenes, training
from common.cameras import Scene, Views
from common.rendering import RadianceField


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(coordinates.CoordinateOptions):
    """A radiance field, its scene and its training."""

    scene: pathlib.Path | None = None
    """Folder with transforms_train.json (Blender) or poses_bounds.npy (LLFF); traced if none."""
    downscale: int = 1
    """Averages squares of so many pixels into one."""
    traced_size: int = 40
    """Height and width of the traced views."""
    width: int = 64
    activation: Literal["relu", "gaussian", "sine"] = "relu"
    gaussian_width: float = 0.5
    sine_frequency: float = 10.0
    position_frequencies: int = 6
    """Octaves of the positional encoding; 0 suits the Gaussian and the sine."""
    direction_frequencies: int = 2
    """Octaves of the encoding of directions."""
    coarse_samples: int = 24
    """Points along a ray at which the coarse field is asked."""
    fine_samples: int = 24
    """Points more at which the fine one is asked, where density is."""


def load_data(options: Options) -> Scene:
    """The scene that the options name."""
    return scenes.load(options.scene, options.downscale, options.traced_size)


def field(options: Options, chosen, name: str) -> keras.Model:
    """Density and color (n, 4), before their activations, of encoded positions and directions."""
    constraint = normalizations.kernel_constraint(chosen)
    position = keras.Input((3 + 6 * options.position_frequencies,), name="position")
    direction = keras.Input((3 + 6 * options.direction_frequencies,), name="direction")

    def hidden(x, layer_name, first=False, precise=False):
        x = coordinates.hidden(x, options, layer_name, first, constraint, precise)
        norm = normalizations.activation_normalization(chosen)
        return x if norm is None else norm(x)

    x = hidden(position, "first", first=True)
    for index in range(1, options.depth):
        # Positions come in again half-way through deep networks.
        again = options.depth >= 6 and index == options.depth // 2
        if again:
            x = layers.Concatenate(dtype="float32")([x, position])
        x = hidden(x, f"hidden_{index}", precise=again)
    density = layers.Dense(1, name="density")(x)
    half = dataclasses.replace(options, width=options.width // 2)
    x = layers.concatenate([x, direction])
    x = coordinates.hidden(x, half, "hidden_direction", constraint=constraint)
    color = layers.Dense(3, name="color")(x)
    outputs = layers.concatenate([density, color])
    return keras.Model([position, direction], outputs, name=name)


def build(normalization: str, data: Scene, options: Options) -> RadianceField:
    """A radiance field under a normalization, such as "row_equilibration"."""
    chosen = normalizations.parse(normalization)
    # Both first, so that their initial weights do not depend on the normalization of one.
    fields = [field(options, chosen, name) for name in ("coarse", "fine")]
    fields = [
        normalizations.with_weight_normalization(
            each, chosen, "hidden_*", options.gain, options.trainable_gain, options.penalty
        )
        for each in fields
    ]
    model = RadianceField(*fields, data, options)
    model(np.zeros((1, 6), "float32"))
    return model


def train(model, data: Scene, options: Options, callbacks=()):
    """Trains on random rays by the squared error of both fields; returns PSNR of each epoch."""
    if not model.compiled:
        loss = keras.losses.MeanSquaredError()
        model.compile(
            training.optimizer(options, model),
            {"coarse": loss, "fine": loss},
            steps_per_execution=options.steps_per_execution,
        )
    rays, colors = data.rays(data.train)
    batches = RayBatches((rays, colors), options)
    rays, colors = data.rays(data.validation)
    # Random, since neighbouring pixels say much the same.
    chosen = np.random.default_rng(0).permutation(len(rays))[:4096]
    rays, colors = training.even_part((rays[chosen], colors[chosen]))
    return training.fit(
        model,
        batches,
        options,
        [PSNR(), *callbacks],
        validation_data=(rays, targets(colors)),
        validation_batch_size=training.shared_evenly(1024),
    )


class PSNR(keras.callbacks.Callback):
    """Adds the PSNR of the fine field, in dB, to the logs of each epoch."""

    def on_epoch_end(self, epoch, logs=None):
        for prefix in ("", "val_"):
            logs[f"{prefix}psnr"] = -10.0 * float(np.log10(logs[f"{prefix}fine_loss"]))


class RayBatches(coordinates.RandomBatches):
    """Random rays with the color that both fields are to give them."""

    def __getitem__(self, index):
        rays, colors = super().__getitem__(index)
        return rays, targets(colors)


def targets(colors):
    """What each output is compared with."""
    return {"coarse": colors, "fine": colors}


def render(model, data: Scene, views: Views, batch_size=2048):
    """Colors (n, height, width, 3) and depths (n, height, width) of views."""
    colors, depths = [], []
    # One after the other: the rays of all views are many times as large as their images.
    for index in range(len(views.images)):
        view = Views(views.images[index : index + 1], views.poses[index : index + 1])
        seen = training.predict(model, data.rays(view)[0], batch_size)
        shape = views.images.shape[1:]
        colors.append(seen["fine"].reshape(shape).clip(0.0, 1.0))
        depths.append(seen["depth"].reshape(shape[:-1]))
    return np.stack(colors), np.stack(depths)


def evaluate(model, data: Scene, options: Options, part="test"):
    """Mean PSNR, in dB, and SSIM, in uniform windows of 7×7 pixels, of the views of one part."""
    from skimage import metrics

    views = getattr(data, part)
    colors, _ = render(model, data, views)
    pairs = list(zip(views.images, colors, strict=True))
    psnr = [metrics.peak_signal_noise_ratio(*pair, data_range=1.0) for pair in pairs]
    ssim = [
        metrics.structural_similarity(
            truth.astype("float32"), color, channel_axis=-1, data_range=1.0
        )
        for truth, color in pairs
    ]
    return {"PSNR": float(np.mean(psnr)), "SSIM": float(np.mean(ssim))}


def draw(runs, data: Scene, options: Options):
    """Two held-out views, as they are and as each model sees them, with depths, and curves."""
    views = Views(data.test.images[:2], data.test.poses[:2])
    figure, axes = figures.figure(2 + len(runs), 3, size=2.6)
    for image, row in zip(views.images, axes, strict=False):
        row[0].imshow(image)
    axes[0, 0].set_title("held-out views")
    for (name, run), column in zip(runs.items(), axes.T[1:], strict=False):
        colors, depths = render(run.model, data, views)
        for color, ax in zip(colors, column, strict=False):
            ax.imshow(color)
        column[0].set_title(f"{name}\n{run.scores['PSNR']:.1f} dB", fontsize=9)
        picture = column[2].imshow(depths[0], cmap="viridis_r", vmin=data.near, vmax=data.far)
    axes[2, 0].text(0.5, 0.5, "depth of the first", ha="center", transform=axes[2, 0].transAxes)
    figure.colorbar(picture, ax=list(axes[2, 1:-1]), label="distance", location="bottom")
    for ax in axes.flat:
        ax.set_axis_off()
    for ax in axes[:, -1]:
        ax.remove()
    curves = figure.add_subplot(axes[0, -1].get_gridspec()[:, -1])
    figures.draw_curves(curves, runs, "val_psnr", "PSNR of rays of validation views, dB")
    return figure


_PHOTOGRAPHS = Options(
    scene=tyro.MISSING, depth=8, width=256, position_frequencies=10, direction_frequencies=4,
    coarse_samples=64, fine_samples=128, batch_size=4096, epochs=200, steps_per_epoch=1000,
    optimizer="adamw", learning_rate=5e-4, warmup_epochs=1,
)  # fmt: skip
RECIPES = {
    "traced": (
        "A small scene that is traced on the spot.",
        Options(
            position_frequencies=5, epochs=8, batch_size=256, optimizer="adamw",
            learning_rate=8e-3, warmup_epochs=1,
        ),
    ),
    "blender": (
        "A synthetic scene at 400×400: --scene nerf_synthetic/lego --downscale 2.", _PHOTOGRAPHS,
    ),
    "llff": (
        "A forward-facing scene: --scene nerf_llff_data/fern --downscale 8.",
        _PHOTOGRAPHS,
    ),
}  # fmt: skip

if __name__ == "__main__":
    command_line.main(sys.modules[__name__])
