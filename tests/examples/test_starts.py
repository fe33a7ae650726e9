"""What the comparison alone asks of the examples: starts, and constraints on what is stored."""

import dataclasses
import math

import keras
import numpy as np
import pytest

from tests.examples.loading import example
from tests.examples.small_networks import conditioned_names, fields_of, small


@pytest.mark.parametrize("family", ["cnn", "nerf", "shape", "deep"])
@pytest.mark.parametrize("name", ["constraint", "row_equilibration+constraint"])
def test_constraint_keeps_the_rows_of_what_is_stored_alike(family, name):
    module = example(family)
    options = small(family, initial_scale=1.3)
    data = module.load_data(options)
    keras.utils.set_random_seed(0)
    model = module.build(name, data, options)
    touched = [
        layer
        for field in fields_of(model)
        for layer in field.layers
        if getattr(layer, "kernel_constraint", None)
    ]
    assert bool(conditioned_names(model)) == (name != "constraint")
    before = [np.linalg.norm(keras.ops.convert_to_numpy(layer.kernel)) for layer in touched]
    module.train(model, data, dataclasses.replace(options, epochs=1, learning_rate=1e-4))
    assert touched
    for layer, norm in zip(touched, before, strict=True):
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        rows = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
        expected = 1.0 if name != "constraint" else norm / math.sqrt(len(rows))
        # The norm itself is that after the last update, which training changes a little.
        np.testing.assert_allclose(rows, rows[0], rtol=1e-5)
        assert rows[0] == pytest.approx(expected, rel=1e-5 if name != "constraint" else 0.02)


def test_constraint_is_not_for_attention():
    vit = example("vit")
    options = small("vit")
    with pytest.raises(ValueError, match=r"without a constraint.*Received: normalization='layer"):
        vit.build("layer+constraint", vit.load_data(options), options)


def starting_kernels(start, **changes):
    """Of the hidden layers of a deep network, and the network."""
    deep = example("deep")
    options = small("deep", start=start, **changes)
    keras.utils.set_random_seed(0)
    model = deep.build("none", deep.load_data(options), options)
    layers = [layer for layer in model.layers if layer.name.startswith("hidden_")]
    return [keras.ops.convert_to_numpy(layer.kernel) for layer in layers], model


def test_badly_scaled_start():
    fresh, _ = starting_kernels("fresh")
    kernels, _ = starting_kernels("badly_scaled", initial_scale=2.0)
    for kernel, other in zip(kernels, fresh, strict=True):
        factors = kernel / other
        np.testing.assert_allclose(factors, np.broadcast_to(factors[0], factors.shape), rtol=1e-4)
        assert np.log(factors[0]).std() > 0.5
        assert np.linalg.norm(kernel) == pytest.approx(2.0 * np.linalg.norm(other), rel=1e-5)


def test_pruned_start():
    dense, _ = starting_kernels("fresh")
    kernels, _ = starting_kernels("pruned")
    scaled, _ = starting_kernels("pruned", initial_scale=0.5, learning_rate=1.0, optimizer="adamw")
    for kernel, other, half in zip(kernels, dense, scaled, strict=True):
        assert np.mean(kernel == 0.0) == pytest.approx(0.9, abs=0.01)
        # Trained before, at a rate of its own.
        assert not np.allclose(kernel[kernel != 0.0], other[kernel != 0.0], rtol=1e-3)
        np.testing.assert_allclose(half, 0.5 * kernel, rtol=1e-6)


def test_fine_tuned_start_was_trained_on_negatives():
    deep = example("deep")
    # Enough training to tell.
    changes = {"epochs": 15, "train_images": 1024, "gain": "initial_norm"}
    _, model = starting_kernels("fine_tuned", **changes)
    options = small("deep", **changes)
    data = deep.load_data(options)
    negatives = dataclasses.replace(data, deviation=-data.deviation)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"])
    seen = deep.evaluate(model, negatives, options)["accuracy"]
    assert seen > 0.8
    assert deep.evaluate(model, data, options)["accuracy"] < seen - 0.2


@pytest.mark.parametrize("start", ["fine_tuned", "pruned"])
def test_starts_have_the_normalization_of_activations(start):
    deep = example("deep")
    options = small("deep", start=start)
    model = deep.build("layer+row_equilibration", deep.load_data(options), options)
    gammas = [keras.ops.convert_to_numpy(w) for w in model.trainable_weights if w.name == "gamma"]
    assert len(gammas) == 4
    assert all(np.abs(gamma - 1.0).max() > 1e-3 for gamma in gammas)
