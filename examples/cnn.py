"""Image classification by convolutional networks: ResNet, DenseNet-BC and Inception.

Each network has a normalization of activations, of weights, of both or of none. The weights of
convolutions are normalized, and the last layer stays plain. The data are scikit-learn's digits or
any image dataset of TFDS. The script trains one model for each of --normalizations, prints a
table and saves a picture. Set KERAS_BACKEND to choose the Keras backend.
"""

import dataclasses
import sys
from typing import Literal

import keras
from keras import layers

from common import command_line, normalizations, training
from common.classification import ClassificationOptions, draw, evaluate, load_data, train

__all__ = ["RECIPES", "Options", "build", "draw", "evaluate", "load_data", "train"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ClassificationOptions):
    """A convolutional network, its images and its training."""

    network: Literal[
        "resnet", "resnet_imagenet", "densenet", "densenet_imagenet", "inception",
        "inception_imagenet",
    ] = "resnet"  # fmt: skip
    """The forms for small images (CIFAR) and for large ones (ImageNet)."""
    depth: int = 20
    """Layers: ResNet 6n+2, or 18, 34, 50, 101 for ImageNet; DenseNet 6n+4, or 121, 169."""
    width: int = 16
    """Filters of ResNet's first stage; the small Inception's are a multiple."""
    growth: int = 12
    """Channels that each layer of DenseNet adds."""


class Parts:
    """The layers that networks are made of, under one normalization.

    Args:
        normalization: A `normalizations.Normalization`.
        options: The options.
    """

    def __init__(self, normalization, options):
        self.normalization, self.options = normalization, options

    def conv(self, x, filters, size=1, strides=1):
        """A convolution, with a bias where no normalization brings one."""
        return layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            use_bias=self.normalization.activations == "none",
            kernel_initializer=training.initializer(self.options),
            kernel_constraint=normalizations.kernel_constraint(self.normalization),
        )(x)

    def norm(self, x):
        """The normalization of activations, if there is one."""
        layer = normalizations.activation_normalization(self.normalization)
        return x if layer is None else layer(x)

    def conv_norm_relu(self, x, filters, size=1, strides=1):
        """The usual three."""
        return layers.ReLU()(self.norm(self.conv(x, filters, size, strides)))

    def norm_relu_conv(self, x, filters, size=1, strides=1):
        """The same three, with the convolution last."""
        return self.conv(layers.ReLU()(self.norm(x)), filters, size, strides)

    def stem_imagenet(self, x, filters):
        """A quarter of the height and width, as networks for ImageNet begin."""
        x = self.conv_norm_relu(x, filters, 7, 2)
        return layers.MaxPooling2D(3, 2, padding="same")(x)


def resnet(x, parts, options):
    """He et al. 2016, section 4.2: three stages of basic blocks, with projections (option B)."""
    _require_depth(options, 6, 2)
    x = parts.conv_norm_relu(x, options.width, 3)
    for stage in range(3):
        for block in range((options.depth - 2) // 6):
            strides = 2 if stage > 0 and block == 0 else 1
            x = basic_block(x, parts, options.width * 2**stage, strides)
    return x


def resnet_imagenet(x, parts, options):
    """He et al. 2016, section 4.1: four stages of basic or, from 50 layers, bottleneck blocks."""
    stages = {
        18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)
    }  # fmt: skip
    _require_listed_depth(options, stages)
    block = basic_block if options.depth < 50 else bottleneck_block
    x = parts.stem_imagenet(x, options.width)
    for stage, blocks in enumerate(stages[options.depth]):
        for index in range(blocks):
            strides = 2 if stage > 0 and index == 0 else 1
            x = block(x, parts, options.width * 2**stage, strides)
    return x


def basic_block(x, parts, filters, strides):
    """Two 3×3 convolutions around which the input is led."""
    y = parts.conv_norm_relu(x, filters, 3, strides)
    y = parts.norm(parts.conv(y, filters, 3))
    return layers.ReLU()(layers.add([shortcut(x, parts, filters, strides), y]))


def bottleneck_block(x, parts, filters, strides):
    """1×1, 3×3 and 1×1 convolutions, the last to four times the filters.

    Strides are those of the 3×3, as in torchvision.
    """
    y = parts.conv_norm_relu(x, filters)
    y = parts.conv_norm_relu(y, filters, 3, strides)
    y = parts.norm(parts.conv(y, 4 * filters))
    return layers.ReLU()(layers.add([shortcut(x, parts, 4 * filters, strides), y]))


def shortcut(x, parts, filters, strides):
    """The input itself, or projected where shapes differ."""
    if strides == 1 and x.shape[-1] == filters:
        return x
    return parts.norm(parts.conv(x, filters, 1, strides))


def densenet(x, parts, options):
    """Huang et al. 2017, DenseNet-BC: three blocks, bottlenecks, compression by a half."""
    _require_depth(options, 6, 4)
    x = parts.conv(x, 2 * options.growth, 3)
    return _dense_blocks(x, parts, options, [(options.depth - 4) // 6] * 3)


def densenet_imagenet(x, parts, options):
    """Huang et al. 2017, table 1: four blocks."""
    blocks = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32)}
    _require_listed_depth(options, blocks)
    x = parts.stem_imagenet(x, 2 * options.growth)
    return _dense_blocks(x, parts, options, blocks[options.depth])


def _dense_blocks(x, parts, options, blocks):
    for block, count in enumerate(blocks):
        if block:
            x = parts.norm_relu_conv(x, x.shape[-1] // 2)
            x = layers.AveragePooling2D(2)(x)
        for _ in range(count):
            y = parts.norm_relu_conv(x, 4 * options.growth)
            y = parts.norm_relu_conv(y, options.growth, 3)
            x = layers.concatenate([x, y])
    return layers.ReLU()(parts.norm(x))


def inception(x, parts, options):
    """The Inception for small images of Zhang et al. 2017, figure 3, at a width of 16."""
    width = options.width
    x = parts.conv_norm_relu(x, 6 * width, 3)
    for ones, threes in ((2, 2), (2, 3)):
        x = two_branches(x, parts, ones * width, threes * width)
    x = downsampling_module(x, parts, 5 * width)
    for ones, threes in ((7, 3), (6, 4), (5, 5), (3, 6)):
        x = two_branches(x, parts, ones * width, threes * width)
    x = downsampling_module(x, parts, 6 * width)
    for ones, threes in ((11, 10), (11, 10)):
        x = two_branches(x, parts, ones * width, threes * width)
    return x


def two_branches(x, parts, ones, threes):
    """1×1 and 3×3 convolutions side by side."""
    branches = [parts.conv_norm_relu(x, ones), parts.conv_norm_relu(x, threes, 3)]
    return layers.concatenate(branches)


def downsampling_module(x, parts, threes):
    """A strided 3×3 convolution beside maximum pooling."""
    pooled = layers.MaxPooling2D(3, 2, padding="same")(x)
    return layers.concatenate([parts.conv_norm_relu(x, threes, 3, 2), pooled])


def inception_imagenet(x, parts, options):
    """GoogLeNet of Szegedy et al. 2015, table 1.

    Without the auxiliary classifiers, dropout and local response normalization.
    """
    stages = [
        [(64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)],
        [
            (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
            (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128),
        ],
        [(256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)],
    ]  # fmt: skip
    x = parts.stem_imagenet(x, 64)
    x = parts.conv_norm_relu(parts.conv_norm_relu(x, 64), 192, 3)
    for stage in stages:
        x = layers.MaxPooling2D(3, 2, padding="same")(x)
        for ones, reduce3, threes, reduce5, fives, pool in stage:
            pooled = layers.MaxPooling2D(3, 1, padding="same")(x)
            x = layers.concatenate(
                [
                    parts.conv_norm_relu(x, ones),
                    parts.conv_norm_relu(parts.conv_norm_relu(x, reduce3), threes, 3),
                    parts.conv_norm_relu(parts.conv_norm_relu(x, reduce5), fives, 5),
                    parts.conv_norm_relu(pooled, pool),
                ]
            )
    return x


def _require_depth(options, step, rest):
    if options.depth <= rest or (options.depth - rest) % step:
        raise ValueError(
            f"Expected the depth of a {options.network} to be a multiple of {step}, plus {rest}. "
            f"Received: depth={options.depth}"
        )


def _require_listed_depth(options, depths):
    if options.depth not in depths:
        raise ValueError(
            f"Expected the depth of a {options.network} to be one of "
            f"{', '.join(map(str, depths))}. Received: depth={options.depth}"
        )


NETWORKS = {
    "resnet": resnet,
    "resnet_imagenet": resnet_imagenet,
    "densenet": densenet,
    "densenet_imagenet": densenet_imagenet,
    "inception": inception,
    "inception_imagenet": inception_imagenet,
}


def build(normalization, data, options):
    """A network of the options under a normalization, such as "batch+row_equilibration"."""
    chosen = normalizations.parse(normalization)
    inputs = keras.Input(data.shape)
    x = NETWORKS[options.network](inputs, Parts(chosen, options), options)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(len(data.classes), name="head")(x))
    return normalizations.with_weight_normalization(
        model, chosen, layers.Conv2D, options.gain, options.trainable_gain, options.penalty
    )


_BOTH = ("batch", "batch+row_equilibration")
_CIFAR = Options(
    data="cifar10", normalizations=_BOTH, epochs=200, batch_size=128, warmup_epochs=5,
    # The papers' L2 penalties of 5e-4, and of 1e-4 below.
    weight_decay=5e-3, workers=8,
)  # fmt: skip
_IMAGENET = Options(
    data="imagenet2012", normalizations=_BOTH, network="resnet_imagenet", depth=50, width=64,
    epochs=90, batch_size=256, warmup_epochs=5, weight_decay=1e-3, label_smoothing=0.1,
    precision="mixed_bfloat16", workers=16,
)  # fmt: skip
RECIPES = {
    "digits": (
        "A ResNet of 8 layers on scikit-learn's digits; nothing to download.",
        Options(
            normalizations=_BOTH, depth=8, epochs=30, batch_size=32, learning_rate=0.05,
            weight_decay=5e-4,
        ),
    ),
    "fashion_mnist": (
        "A ResNet of 14 layers on 10,000 images of Fashion-MNIST.",
        Options(
            data="fashion_mnist", train_images=10_000, normalizations=_BOTH, depth=14, epochs=40,
            batch_size=64, weight_decay=1e-3,
        ),
    ),
    "cifar10": ("ResNet-20 on CIFAR-10.", _CIFAR),
    "cifar10_densenet": (
        "DenseNet-BC of 100 layers on CIFAR-10.",
        dataclasses.replace(
            _CIFAR, network="densenet", depth=100, epochs=300, batch_size=64, weight_decay=1e-3
        ),
    ),
    "cifar10_inception": (
        "Inception for small images on CIFAR-10.",
        dataclasses.replace(_CIFAR, network="inception"),
    ),
    "cifar100": (
        "ResNet-56 on CIFAR-100.",
        dataclasses.replace(_CIFAR, data="cifar100", depth=56),
    ),
    "imagenet": ("ResNet-50 on ImageNet; add --distribute for several GPUs.", _IMAGENET),
}  # fmt: skip

if __name__ == "__main__":
    command_line.main(sys.modules[__name__])
