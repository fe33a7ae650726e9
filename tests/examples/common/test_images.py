"""Labelled images: TFDS by its own mock data, and messages about what cannot be read."""

import pathlib

import numpy as np
import pytest

from tests.examples.loading import example

tfds = pytest.importorskip("tensorflow_datasets")
PREPARED = pathlib.Path("~/tensorflow_datasets/fashion_mnist").expanduser()


@pytest.fixture
def images():
    return example("common.images")


@pytest.fixture
def image_batches():
    return example("common.image_batches")


def test_cifar10_in_memory(images, image_batches):
    options = images.ImageOptions(data="cifar10", validation_fraction=0.25)
    with tfds.testing.mock_data(num_examples=20):
        data = images.load(options)
    assert (len(data.train), len(data.validation), len(data.test)) == (15, 5, 20)
    assert data.shape == (32, 32, 3)
    assert len(data.classes) == 10
    pixels, labels = image_batches.Batches(data.train, data, 15, options)[0]
    assert (pixels.dtype, pixels.shape) == ("float32", (15, 32, 32, 3))
    assert (labels.dtype, labels.shape) == ("int32", (15,))
    np.testing.assert_allclose(pixels.mean(axis=(0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(pixels.std(axis=(0, 1, 2)), 1.0, atol=1e-3)


def test_imagenet_is_read_and_cropped_as_needed(images, image_batches):
    options = images.ImageOptions(data="imagenet2012", image_size=32, train_images=6)
    with tfds.testing.mock_data(num_examples=10):
        data = images.load(options)
        batches = image_batches.Batches(data.train, data, 4, options, seed=0)
        sizes = [batch[0].shape for batch in (batches[0], batches[1])]
        first, labels = batches[0]
        test, _ = image_batches.Batches(data.test, data, 4, options)[0]
        again, _ = batches[0]
    assert len(data.classes) == 1000
    assert sizes == [(4, 32, 32, 3), (2, 32, 32, 3)]
    assert test.shape == (4, 32, 32, 3)
    assert labels.max() < 1000
    np.testing.assert_array_equal(first, again)
    # Normalized, mock pixels span what real ones do.
    assert -2.2 < first.min() < first.max() < 2.8


def test_statistics_of_as_many_pixels_as_cifar_has(images, monkeypatch):
    count = 45_000
    # In the memory's usual order, in which NumPy adds pixel by pixel.
    pixels = np.tile(np.array([200, 100, 50], "uint8"), (count, 32, 32, 1))
    part = images.Arrays(pixels, np.zeros(count, int))
    monkeypatch.setattr(images, "load_digits", lambda: ((part, part), ["one"]))
    data = images.load(images.ImageOptions(validation_fraction=0.5))
    np.testing.assert_allclose(data.mean, [200.0, 100.0, 50.0], rtol=1e-6)
    np.testing.assert_allclose(data.deviation, 1e-3, rtol=1e-3)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_validation_needs_images_and_leaves_some(images, fraction):
    options = images.ImageOptions(validation_fraction=fraction)
    with pytest.raises(ValueError, match=r"at least one and not all.*1347 images"):
        images.load(options)


@pytest.mark.skipif(
    not PREPARED.exists(), reason=f"needs Fashion-MNIST prepared by TFDS in {PREPARED.parent}"
)
def test_fashion_mnist_for_real(images):
    options = images.ImageOptions(data="fashion_mnist", train_images=10_000, downscale=2)
    data = images.load(options)
    assert (len(data.train), len(data.test)) == (10_000, 10_000)
    assert data.shape == (14, 14, 1)
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    # The mean of all training pixels is known to be 0.286.
    assert data.mean[0] / 255.0 == pytest.approx(0.286, abs=0.005)


def test_parts_do_not_overlap_and_limits_hold(images):
    data = images.load(images.ImageOptions(train_images=1000, validation_fraction=0.2))
    assert (len(data.train), len(data.validation), len(data.test)) == (1000, 269, 450)
    rows = [
        {part.images[i].tobytes() for i in range(len(part))}
        for part in (data.train, data.validation, data.test)
    ]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]


def test_unknown_dataset(images):
    with pytest.raises(ValueError, match=r"Expected 'digits' or the name.*data='no_such_data'"):
        images.load(images.ImageOptions(data="no_such_data"))


def test_dataset_that_is_not_there(images, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", refuse)
    with pytest.raises(ValueError, match=r"nor be downloaded.*tfds build cifar10.*no network"):
        images.load(images.ImageOptions(data="cifar10", data_dir=tmp_path))


def test_dataset_without_labels(images, tmp_path):
    with (
        tfds.testing.mock_data(num_examples=2),
        pytest.raises(ValueError, match=r"features 'image' and 'label'.*ag_news_subset"),
    ):
        images.load(images.ImageOptions(data="ag_news_subset", data_dir=tmp_path))
