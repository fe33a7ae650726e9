"""The families' networks made small, and what of them is conditioned."""

import dataclasses

from keras_wcond.layers.base.folding import conditioned_layers
from tests.examples.loading import example

SMALL = {
    # No narrower: of 3 to 6 channels, a convolution of 1 × 1 with strides of 2 writes beyond its
    # memory on PyTorch 2.13 (torch.nn.functional.conv2d by itself, on CPUs without AVX-512).
    "cnn": {"depth": 8, "width": 8, "epochs": 2, "train_images": 256, "batch_size": 64},
    "vit": {"patch_size": 4, "epochs": 2, "train_images": 256, "batch_size": 64},
    "nerf": {
        "traced_size": 8, "depth": 3, "width": 16, "coarse_samples": 6, "fine_samples": 6,
        "steps_per_epoch": 10, "epochs": 2, "batch_size": 64,
    },
    "shape": {
        "depth": 3, "width": 16, "points": 4000, "test_points": 4000, "resolution": 24,
        "steps_per_epoch": 40, "epochs": 2, "batch_size": 256, "learning_rate": 0.01,
    },
    "deep": {"depth": 4, "width": 16, "epochs": 2, "train_images": 256},
}  # fmt: skip


def small(family, **changes):
    """The options of a family's offline default, made small."""
    (_, options), *_ = example(family).RECIPES.values()
    return dataclasses.replace(options, **{**SMALL[family], **changes})


def fields_of(model):
    return [model.coarse, model.fine] if hasattr(model, "coarse") else [model]


def conditioned_names(model):
    """Of the layers of the graph that are conditioned, or hold what is."""
    return [
        layer.name
        for field in fields_of(model)
        for layer in field.layers
        if conditioned_layers(layer)
    ]
