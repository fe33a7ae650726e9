"""Image classification by vision transformers.

Blocks of attention and a perceptron, with normalization in front of each, act on embedded
patches. Weights are normalized in the projections of attention and in the perceptrons. The
embedding of patches and the last layer stay plain. The data are scikit-learn's digits or any
image dataset of TFDS. The script trains one model for each of --normalizations, prints a table
and saves a picture. Set KERAS_BACKEND to choose the Keras backend.
"""

import dataclasses
import sys
from typing import Literal

import keras
from keras import layers

from common import command_line, normalizations, training
from common.classification import ClassificationOptions, draw, evaluate, load_data, train

__all__ = ["RECIPES", "Options", "build", "draw", "evaluate", "load_data", "train"]

# Dosovitskiy et al. 2021, table 1; Touvron et al. 2021, table 1. (width, blocks, heads)
SIZES = {
    "tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12),
    "digits": (48, 3, 3), "mini": (32, 3, 2),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ClassificationOptions):
    """A vision transformer, its images and its training."""

    size: Literal["tiny", "small", "base", "digits", "mini"] = "digits"
    """ViT-Ti, ViT-S, ViT-B, or one of two small ones."""
    patch_size: int = 2
    """Height and width of patches, in pixels."""
    pooling: Literal["token", "average"] = "average"
    """What the last layer reads: a class token, or the mean of all tokens."""
    dropout: float = 0.0
    """Of attention and of perceptrons."""


@keras.saving.register_keras_serializable("keras_wcond_examples")
class ClassToken(layers.Layer):
    """Puts a trained token in front: (n, tokens, width) to (n, 1 + tokens, width)."""

    def build(self, input_shape):
        self.token = self.add_weight(
            shape=(1, 1, input_shape[-1]), initializer="zeros", name="token"
        )

    def call(self, tokens):
        shape = (keras.ops.shape(tokens)[0], 1, tokens.shape[-1])
        front = keras.ops.broadcast_to(keras.ops.cast(self.token, tokens.dtype), shape)
        return keras.ops.concatenate([front, tokens], axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[1] + 1, input_shape[2])


@keras.saving.register_keras_serializable("keras_wcond_examples")
class PositionEmbedding(layers.Layer):
    """Adds a trained vector to each token."""

    def build(self, input_shape):
        self.position = self.add_weight(
            shape=input_shape[1:],
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="position",
        )

    def call(self, tokens):
        return tokens + keras.ops.cast(self.position, tokens.dtype)


def block(x, normalization, heads, options, index):
    """Attention and perceptron, each around which the input is led."""
    width = x.shape[-1]
    names = f"block_{index}"

    def projection(units, name, activation=None):
        return layers.Dense(
            units,
            activation,
            kernel_initializer=training.initializer(options, factor=1.0),
            name=f"{names}_{name}",
        )

    def norm(y, name):
        layer = normalizations.activation_normalization(normalization, f"{names}_{name}")
        return y if layer is None else layer(y)

    y = norm(x, "attention_norm")
    y = layers.MultiHeadAttention(
        heads,
        width // heads,
        dropout=options.dropout,
        kernel_initializer=training.initializer(options, factor=1.0),
        name=f"{names}_attention",
    )(y, y)
    x = layers.add([x, y])
    y = projection(4 * width, "expand", "gelu")(norm(x, "perceptron_norm"))
    y = projection(width, "contract")(layers.Dropout(options.dropout)(y))
    return layers.add([x, layers.Dropout(options.dropout)(y)])


def build(normalization, data, options):
    """A transformer of the options under a normalization, such as "layer+row_equilibration"."""
    height, width, _ = data.shape
    if height % options.patch_size or width % options.patch_size:
        raise ValueError(
            "Expected a patch size that divides the height and the width of the images. Received: "
            f"patch_size={options.patch_size}, for images of {height}×{width} pixels"
        )
    chosen = normalizations.parse(normalization)
    if chosen.constraint:
        raise ValueError(
            "Expected a normalization without a constraint, since a constraint cannot tell the "
            "rows of the kernels of attention, which differ in their axes. Received: "
            f"normalization={normalization!r}"
        )
    channels, blocks, heads = SIZES[options.size]
    inputs = keras.Input(data.shape)
    x = layers.Conv2D(channels, options.patch_size, options.patch_size, name="patches")(inputs)
    x = layers.Reshape((-1, channels))(x)
    if options.pooling == "token":
        x = ClassToken(name="class_token")(x)
    x = PositionEmbedding(name="position")(x)
    for index in range(blocks):
        x = block(x, chosen, heads, options, index)
    last = normalizations.activation_normalization(chosen, "last_norm")
    x = x if last is None else last(x)
    x = x[:, 0] if options.pooling == "token" else layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(len(data.classes), name="head")(x))
    return normalizations.with_weight_normalization(
        model, chosen, "block_*", options.gain, options.trainable_gain, options.penalty
    )


_BOTH = ("layer", "layer+row_equilibration")
_IMAGENET = Options(
    data="imagenet2012", normalizations=_BOTH, size="small", patch_size=16, pooling="token",
    epochs=300, batch_size=1024, optimizer="adamw", learning_rate=1e-3, warmup_epochs=20,
    weight_decay=0.05, label_smoothing=0.1, dropout=0.1, precision="mixed_bfloat16", workers=16,
)  # fmt: skip
RECIPES = {
    "digits": (
        "A small transformer on scikit-learn's digits; nothing to download.",
        Options(
            normalizations=_BOTH, epochs=25, batch_size=64, optimizer="adamw",
            learning_rate=4e-3, warmup_epochs=4, weight_decay=0.05, augment=False,
        ),
    ),
    "cifar10": (
        "ViT-Ti with patches of 4 pixels on CIFAR-10.",
        Options(
            data="cifar10", normalizations=_BOTH, size="tiny", patch_size=4, epochs=200,
            batch_size=256, optimizer="adamw", learning_rate=1e-3, warmup_epochs=10,
            weight_decay=0.05, label_smoothing=0.1, dropout=0.1, workers=8,
        ),
    ),
    "imagenet": ("ViT-S/16 on ImageNet; add --distribute for several GPUs.", _IMAGENET),
    "imagenet_base": (
        "ViT-B/16 on ImageNet; add --distribute for several GPUs.",
        dataclasses.replace(_IMAGENET, size="base"),
    ),
}  # fmt: skip

if __name__ == "__main__":
    command_line.main(sys.modules[__name__])
