"""Normalized and augmented batches of labelled images."""

import math

import keras
import numpy as np

from common import training
from common.images import Source, dataset_of

# Mirror images of these are other things, or nothing.
WITHOUT_MIRRORING = (
    "digits", "mnist", "mnist_corrupted", "binarized_mnist", "kmnist", "emnist", "omniglot",
    "svhn_cropped",
)  # fmt: skip


class Batches(keras.utils.PyDataset):
    """Normalized batches of (images, labels), in a new order every epoch when training.

    Args:
        part: `Arrays` or `Source`.
        data: The `Images` it belongs to.
        batch_size: Integer.
        options: `ImageOptions`, which say whether to augment.
        seed: Integer of the order and of the augmentation when training; None to evaluate.
        **kwargs: Of `keras.utils.PyDataset`, such as `workers`.
    """

    def __init__(self, part, data, batch_size, options, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.part, self.data, self.options = part, data, options
        self.seed, self.epoch = seed, -1
        # Of the last batch, what devices cannot share evenly is left out.
        self.multiple = training.devices()
        self.batch_size = training.shared_evenly(batch_size)
        self.on_epoch_end()

    def on_epoch_end(self):
        self.epoch += 1
        self.order = np.arange(len(self.part))
        if self.seed is not None:
            np.random.default_rng((self.seed, self.epoch)).shuffle(self.order)

    def __len__(self):
        return math.ceil(self._count() / self.batch_size)

    def _count(self):
        return len(self.part) // self.multiple * self.multiple

    def __getitem__(self, index):
        chosen = self.order[: self._count()][index * self.batch_size :][: self.batch_size]
        augment = self.seed is not None and self.options.augment
        rng = np.random.default_rng((self.seed or 0, self.epoch, index))
        if isinstance(self.part, Source):
            records = [self.part.records[int(i)] for i in self.part.indices[chosen]]
            size = self.options.image_size
            images = np.stack(
                [cropped(record["image"], size, rng if augment else None) for record in records]
            )
            labels = np.array([record["label"] for record in records])
        else:
            images, labels = self.part.images[chosen], self.part.labels[chosen]
            if augment:
                images = shifted(images, rng)
        if augment and dataset_of(self.options.data) not in WITHOUT_MIRRORING:
            mirrored = rng.random(len(images)) < 0.5
            images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        normalized = (images.astype("float32") - self.data.mean) / self.data.deviation
        return normalized, labels.astype("int32")


def shifted(images, rng):
    """Each image moved by up to an eighth of its height in each direction, zeros moving in."""
    n, height, width, _ = images.shape
    reach = max(height // 8, 1)
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    down, right = rng.integers(0, 2 * reach + 1, (2, n))
    rows = (down[:, None] + np.arange(height))[:, :, None]
    columns = (right[:, None] + np.arange(width))[:, None, :]
    return padded[np.arange(n)[:, None, None], rows, columns]


def cropped(image, size, rng=None):
    """A square of an image: a random part of 8 to 100 % of its area, or without rng the centre.

    The central crop is the usual 224 of 256 pixels, at whatever size.
    """
    from PIL import Image

    height, width = image.shape[:2]
    if rng is None:
        side = min(height, width) * 224 / 256
        crop_height, crop_width = side, side
        top, left = (height - side) / 2, (width - side) / 2
    else:
        area = height * width * rng.uniform(0.08, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        crop_height = min(math.sqrt(area / ratio), height)
        crop_width = min(math.sqrt(area * ratio), width)
        top, left = rng.uniform(0, height - crop_height), rng.uniform(0, width - crop_width)
    box = (left, top, left + crop_width, top + crop_height)
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).convert("RGB")
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=box))
