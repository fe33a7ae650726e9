"""The example networks are those of their papers: trainable parameters, as published."""

import keras
import numpy as np
import pytest

from tests.examples.loading import example

# He et al. 2016 and torchvision; Huang et al. 2017; Zhang et al. 2017; Touvron et al. 2021
# and timm.
SMALL_IMAGES = {
    "resnet": ({"depth": 20}, 272_474, 0.0),
    "densenet": ({"depth": 100}, 769_162, 0.0),
    # The paper's crops of 28 pixels and normalization leave 0.1 % of doubt.
    "inception": ({}, 1_649_402, 2e-3),
}


def dataset(size, classes):
    images = example("common.images")
    return images.Images(None, None, None, (size, size, 3), [""] * classes, 0.0, 1.0)


def trainable_parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


on_one_backend = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="the same on every backend, and slow to build"
)


@on_one_backend
@pytest.mark.parametrize("network", SMALL_IMAGES)
def test_networks_for_small_images(network):
    cnn = example("cnn")
    settings, expected, doubt = SMALL_IMAGES[network]
    model = cnn.build("batch", dataset(32, 10), cnn.Options(network=network, **settings))
    assert trainable_parameters(model) == pytest.approx(expected, rel=doubt, abs=0)


@on_one_backend
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"network": "resnet_imagenet", "depth": 18, "width": 64}, 11_689_512),
        ({"network": "resnet_imagenet", "depth": 50, "width": 64}, 25_557_032),
        ({"network": "densenet_imagenet", "depth": 121, "growth": 32}, 7_978_856),
    ],
)
def test_networks_for_imagenet(settings, expected):
    cnn = example("cnn")
    model = cnn.build("batch", dataset(224, 1000), cnn.Options(**settings))
    assert trainable_parameters(model) == expected


@on_one_backend
def test_vision_transformer():
    vit = example("vit")
    options = vit.Options(size="tiny", patch_size=16, pooling="token")
    model = vit.build("layer", dataset(224, 1000), options)
    assert model.count_params() == 5_717_416
    assert model.output_shape == (None, 1000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 21}, r"multiple of 6, plus 2.*depth=21"),
        ({"network": "densenet", "depth": 20}, r"multiple of 6, plus 4.*depth=20"),
        ({"network": "resnet_imagenet", "depth": 20}, r"one of 18, 34, 50, 101.*depth=20"),
    ],
)
def test_depths_that_do_not_exist(settings, message):
    cnn = example("cnn")
    with pytest.raises(ValueError, match=message):
        cnn.build("batch", dataset(32, 10), cnn.Options(**settings))


def test_patches_that_do_not_fit():
    vit = example("vit")
    with pytest.raises(ValueError, match=r"Expected a patch size that divides.*patch_size=5"):
        vit.build("layer", dataset(32, 10), vit.Options(patch_size=5))
