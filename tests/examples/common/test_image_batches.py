"""Batches of images: order, sizes and augmentation."""

import numpy as np
import pytest

from tests.examples.loading import example


@pytest.fixture
def images():
    return example("common.images")


@pytest.fixture
def image_batches():
    return example("common.image_batches")


@pytest.mark.parametrize(
    ("name", "mirrored"),
    [("cifar10", True), ("emnist/letters:3.1.0", False), ("mnist:3.0.1", False)],
)
def test_what_reads_otherwise_in_a_mirror_is_not_mirrored(images, image_batches, name, mirrored):
    options = images.ImageOptions(data=name)
    ramp = np.broadcast_to(np.arange(16, dtype="uint8")[:, None], (64, 16, 16, 1))
    part = images.Arrays(ramp, np.zeros(64, int))
    data = images.Images(part, part, part, (16, 16, 1), ["one"], 0.0, 1.0)
    pixels, _ = image_batches.Batches(part, data, 64, options, seed=0)[0]
    falling = (np.diff(pixels[:, 8, 4:12, 0], axis=-1) < 0).all(axis=-1)
    assert falling.any() == mirrored


def test_devices_share_batches_evenly(images, image_batches, monkeypatch):
    options = images.ImageOptions(data="cifar10")
    part = images.Arrays(np.zeros((61, 4, 4, 1), "uint8"), np.arange(61))
    data = images.Images(part, part, part, (4, 4, 1), ["one"], 0.0, 1.0)
    monkeypatch.setattr(example("common.training"), "devices", lambda: 3)
    batches = image_batches.Batches(part, data, 25, options)
    labels = [batches[index][1] for index in range(len(batches))]
    assert [len(each) for each in labels] == [27, 27, 6]
    assert np.concatenate(labels).tolist() == list(range(60))


def test_training_order_changes_by_epoch_and_repeats_by_seed(images, image_batches):
    options = images.ImageOptions(augment=False)
    data = images.load(options)
    orders = []
    for _ in range(2):
        batches = image_batches.Batches(data.train, data, 500, options, seed=3)
        epochs = []
        for _ in range(2):
            epochs.append(np.concatenate([batches[i][1] for i in range(len(batches))]))
            batches.on_epoch_end()
        orders.append(epochs)
    np.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0][0] != orders[0][1]).any()
    np.testing.assert_array_equal(np.sort(orders[0][0]), np.sort(data.train.labels))


def test_shifted_images_are_parts_of_the_padded_ones(image_batches):
    rng = np.random.default_rng(0)
    original = rng.integers(1, 255, (50, 8, 8, 1), "uint8")
    moved = image_batches.shifted(original, rng)
    shifts = [
        [
            (down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if np.array_equal(translated(picture, down, right), result)
        ]
        for picture, result in zip(original, moved, strict=True)
    ]
    assert all(len(found) == 1 for found in shifts)
    assert len({found[0] for found in shifts}) == 9


def translated(picture, down, right):
    result = np.zeros_like(picture)
    height, width = picture.shape[:2]
    result[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)] = picture[
        max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)
    ]
    return result


def test_evaluation_crops_the_centre(image_batches):
    picture = np.zeros((64, 128, 3), "uint8")
    picture[:, 32:96] = 200
    np.testing.assert_array_equal(image_batches.cropped(picture, 16), 200)


def test_random_crops_stay_inside(image_batches):
    rng = np.random.default_rng(0)
    picture = np.full((30, 50, 3), 77, "uint8")
    for _ in range(50):
        np.testing.assert_array_equal(image_batches.cropped(picture, 8, rng), 77)
