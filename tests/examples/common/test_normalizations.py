"""Names of normalizations, and the networks that are built for them."""

import keras
import numpy as np
import pytest

from keras_wcond import fold_model
from tests.examples.loading import example
from tests.examples.small_networks import conditioned_names, small


def test_rows_at_start_make_a_plain_network_that_starts_as_the_equilibrated_one():
    deep = example("deep")
    options = small("deep")
    data = deep.load_data(options)
    outputs = []
    for name in ("row_equilibration", "row_equilibration+at_start"):
        keras.utils.set_random_seed(0)
        model = deep.build(name, data, options)
        images = data.test.images[:8].astype("float32")
        outputs.append(keras.ops.convert_to_numpy(model(images)))
    assert conditioned_names(model) == []
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-4)
    keras.utils.set_random_seed(0)
    default = keras.ops.convert_to_numpy(deep.build("none", data, options)(images))
    assert np.abs(default - outputs[0]).max() > 0.01 * np.abs(default).max()


def test_weight_normalization_starts_as_the_scale_of_the_plain_network_and_trains_its_gains():
    deep = example("deep")
    options = small("deep")
    model = deep.build("weight_normalization", deep.load_data(options), options)
    gains = [weight for weight in model.trainable_weights if "gain" in weight.path]
    assert [tuple(gain.shape) for gain in gains] == [(16,)] * 3
    assert fold_model(model).count_params() < model.count_params()


@pytest.mark.parametrize(
    "name",
    [
        "batchnorm", "batch+spectral", "batch+layer", "", "row_equilibration+", "none+none",
        "none+everywhere", "none+at_start",
    ],
)  # fmt: skip
def test_unknown_normalization(name):
    with pytest.raises(ValueError, match=r"Expected a normalization: one of none, batch.*Received"):
        example("common.normalizations").parse(name)


def test_what_stands_alone():
    with pytest.raises(
        ValueError, match=r"weight_normalization and orthogonal_initializer and .* stand alone"
    ):
        example("common.normalizations").parse("batch+weight_normalization+spectral_normalization")


def test_methods_one_after_the_other():
    parse = example("common.normalizations").parse
    parsed = parse("layer+row_equilibration+newton_orthogonalization")
    assert parsed.activations == "layer"
    assert parsed.weights == ("row_equilibration", "newton_orthogonalization")


def test_newton_without_centering():
    deep = example("deep")
    options = small("deep")
    data = deep.load_data(options)
    means = []
    for name in ("newton_orthogonalization", "uncentered_newton_orthogonalization"):
        model = deep.build(name, data, options)
        kernel = keras.ops.convert_to_numpy(model.get_layer("hidden_1").conditioned_kernel)
        means.append(np.abs(kernel.mean(axis=0)).max())
        assert np.linalg.cond(kernel) > 1.0
    assert means[0] < 1e-6 < 1e-3 < means[1]


KERNELS = {
    "orthogonal_initializer": 1.0,
    "newton_step+stored": 1.0,
    "newton_orthogonalization+at_start": None,
    "none": None,
}


@pytest.mark.parametrize("name", KERNELS)
def test_plain_networks_with_other_starts_keep_the_norms_of_kernels(name):
    deep = example("deep")
    options = small("deep")
    data = deep.load_data(options)
    kernels = []
    for each in ("none", name):
        keras.utils.set_random_seed(0)
        model = deep.build(each, data, options)
        assert conditioned_names(model) == []
        kernels.append(keras.ops.convert_to_numpy(model.get_layer("hidden_1").kernel))
    np.testing.assert_allclose(*map(np.linalg.norm, kernels), rtol=1e-4)
    if KERNELS[name]:
        assert np.linalg.cond(kernels[1]) == pytest.approx(KERNELS[name], rel=0.01)


def test_a_stored_kernel_is_conditioned_after_every_eighth_update():
    deep = example("deep")
    options = small("deep")
    data = deep.load_data(options)
    model = deep.build("newton_step+stored", data, options)
    assert model.optimizer_conditioning["every"] == 8
    deep.train(model, data, options)
    assert type(model.optimizer).__name__ == "ConditionedSGD"
    model = deep.build("orthogonal_updates", data, options)
    optimizer = example("common.training").optimizer(options, model)
    assert optimizer.get_config()["update_conditioner"]["class_name"].endswith("PolarExpress")
    kernels = [
        model.trainable_variables[kernel["position"]].path
        for kernel in optimizer.get_config()["kernels"]
    ]
    assert kernels == [f"hidden_{index}/kernel" for index in (1, 2, 3)]


def test_the_penalty_of_filters_that_are_not_orthogonal():
    deep = example("deep")
    options = small("deep")
    model = deep.build("orthogonal_regularizer", deep.load_data(options), options)
    assert len(model.losses) == 3
    regularizer = example("common.normalizations").OrthogonalFilters(2.0, mode="columns")
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype("float32")
    filters = kernel.reshape(-1, 8) / np.linalg.norm(kernel.reshape(-1, 8), axis=0)
    products = np.abs(filters.T @ filters)[np.triu_indices(8, 1)]
    np.testing.assert_allclose(float(regularizer(kernel)), 2.0 * products.mean(), rtol=1e-4)


def test_the_gradient_passes_through_multipliers_where_the_name_says_so():
    conditioners = [
        example("deep")
        .build(name, example("deep").load_data(small("deep")), small("deep"))
        .get_layer("hidden_1")
        .kernel_conditioner
        for name in ("newton_orthogonalization", "newton_orthogonalization+differentiated")
    ]
    assert [each.differentiate_multiplier for each in conditioners] == [False, True]
