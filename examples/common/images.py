"""Labelled images for the examples: scikit-learn's digits, or any such dataset of TFDS.

TFDS is read through `tfds.data_source`, which needs no TensorFlow, by random access to files
in the ArrayRecord format. Images of one size are held in memory; others (ImageNet) are read
and cropped as they are needed.
"""

import dataclasses
import pathlib
import re
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Which images, and how they are prepared."""

    data: str = "digits"
    """digits, or the name of a TFDS dataset: fashion_mnist, cifar10, cifar100, imagenet2012."""
    data_dir: pathlib.Path | None = None
    """Where TFDS keeps its datasets; ~/tensorflow_datasets unless told."""
    train_images: int | None = None
    """How many images to train on; all unless told."""
    validation_fraction: float = 0.1
    """Part of the training images that is held out to choose settings on."""
    downscale: int = 1
    """Averages squares of so many pixels into one, of images of one size."""
    image_size: int = 224
    """Height and width that images of different sizes are cropped to."""
    augment: bool = True
    """Random crops, and mirror images where these mean the same."""


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Images in memory: uint8 of shape (n, height, width, channels), labels of shape (n,)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Source:
    """Images in files: a sequence of {"image", "label"}, of which `indices` are meant."""

    records: Any
    indices: np.ndarray

    def __len__(self):
        return len(self.indices)


# Compared by identity, so that what follows from a dataset can be kept beside it.
@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """A dataset in three parts, with what its pixels are normalized by.

    Args:
        train: `Arrays` or `Source`.
        validation: Likewise.
        test: Likewise.
        shape: (height, width, channels) of the model's input.
        classes: Names of the classes.
        mean: Of the training pixels, one a channel, in [0, 255].
        deviation: Their standard deviation.
    """

    train: Arrays | Source
    validation: Arrays | Source
    test: Arrays | Source
    shape: tuple[int, int, int]
    classes: list[str]
    mean: np.ndarray
    deviation: np.ndarray


def load(options: ImageOptions, seed: int = 0) -> Images:
    """The dataset that the options name, split in training, validation and test."""
    parts, classes = (
        load_digits() if options.data == "digits" else load_tfds(options.data, options.data_dir)
    )
    held_out, test = parts
    order = np.random.default_rng(seed).permutation(len(held_out))
    validation_size = round(options.validation_fraction * len(held_out))
    if not 0 < validation_size < len(held_out):
        raise ValueError(
            "Expected a part of the training images, at least one and not all, to hold out for "
            f"validation. Received: validation_fraction={options.validation_fraction!r}, of "
            f"{len(held_out)} images"
        )
    train_size = min(options.train_images or len(order), len(order) - validation_size)
    train = _subset(held_out, order[validation_size:][:train_size])
    validation = _subset(held_out, order[:validation_size])
    parts = [_downscaled(part, options.downscale) for part in (train, validation, test)]
    if isinstance(parts[0], Source):
        # The usual statistics of ImageNet's training pixels.
        shape = (options.image_size, options.image_size, 3)
        mean, deviation = np.array([[123.7, 116.3, 103.5], [58.4, 57.1, 57.4]], "float32")
    else:
        pixels = parts[0].images.astype("float32")
        shape = pixels.shape[1:]
        # A sum of so many pixels has more digits than float32.
        mean = pixels.mean(axis=(0, 1, 2), dtype="float64").astype("float32")
        deviation = pixels.std(axis=(0, 1, 2), dtype="float64").astype("float32") + 1e-3
    return Images(*parts, shape=shape, classes=classes, mean=mean, deviation=deviation)


def dataset_of(name: str) -> str:
    """A dataset's name without configuration and version: "emnist" of "emnist/letters:3.1.0"."""
    return re.split("[/:]", name)[0]


def load_digits():
    """The 1,797 scanned digits of scikit-learn, 8 by 8 pixels: three quarters, one quarter."""
    from sklearn import datasets, model_selection

    digits = datasets.load_digits()
    images = (digits.images[..., None] * (255.0 / 16.0)).round().astype("uint8")
    train, test, train_labels, test_labels = model_selection.train_test_split(
        images, digits.target, test_size=0.25, stratify=digits.target, random_state=0
    )
    parts = Arrays(train, train_labels), Arrays(test, test_labels)
    return parts, [str(name) for name in digits.target_names]


def load_tfds(name: str, data_dir: pathlib.Path | None = None):
    """Training and test images of a TFDS dataset; its validation split where it has no test."""
    import tensorflow_datasets as tfds

    arguments = {"data_dir": data_dir and str(data_dir.expanduser())}
    try:
        builder = tfds.builder(name, file_format="array_record", **arguments)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            "Expected 'digits' or the name of a TFDS dataset of labelled images, such as "
            f"'cifar10' or 'fashion_mnist'. Received: data={name!r}"
        ) from error
    reading = {"builder_kwargs": {"file_format": "array_record"}, **arguments}
    try:
        train = tfds.data_source(name, split="train", **reading)
        splits = set(tfds.builder(name, file_format="array_record", **arguments).info.splits)
        # The labels of ImageNet's own test images are not public.
        has_test = dataset_of(name) != "imagenet2012" and (not splits or "test" in splits)
        test = tfds.data_source(name, split="test" if has_test else "validation", **reading)
    except Exception as error:
        raise ValueError(
            f"The dataset {name!r} could not be read from {builder.data_path.parent}, nor be "
            "downloaded and prepared there, or has no splits 'train' and 'test' or 'validation'. "
            "Prepare it once, where there is a network and TensorFlow is installed, with "
            f"`tfds build {name} --file_format=array_record`, and name its folder by --data-dir. "
            f"Received: data={name!r}. The reason was: {error}"
        ) from error
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise ValueError(
            "Expected a dataset with features 'image' and 'label'. Received: "
            f"data={name!r}, whose features are {', '.join(features)}"
        )
    parts = [Source(records, np.arange(len(records))) for records in (train, test)]
    if None not in features["image"].shape:
        parts = [_in_memory(part) for part in parts]
    return parts, list(features["label"].names)


def _in_memory(source):
    records = [source.records[int(index)] for index in source.indices]
    images = np.stack([record["image"] for record in records])
    return Arrays(images, np.array([record["label"] for record in records]))


def _subset(part, indices):
    if isinstance(part, Source):
        return Source(part.records, part.indices[indices])
    return Arrays(part.images[indices], part.labels[indices])


def _downscaled(part, factor):
    if factor == 1 or isinstance(part, Source):
        return part
    from skimage import transform

    averages = transform.downscale_local_mean(part.images, (1, factor, factor, 1))
    return Arrays(averages.round().astype("uint8"), part.labels)
