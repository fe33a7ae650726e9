"""The five families of examples: a few real steps of each, and what all have in common."""

import math

import keras
import numpy as np
import pytest

from tests.examples.loading import FAMILIES, example
from tests.examples.small_networks import conditioned_names, fields_of, small

ACTIVATIONS = {"cnn": "batch", "vit": "layer", "nerf": "none", "shape": "none", "deep": "none"}


@pytest.mark.parametrize("family", FAMILIES)
def test_trains_reports_and_draws(family, tmp_path, capsys):
    name = f"{ACTIVATIONS[family]}+row_equilibration"
    options = small(family, normalizations=(name,), output=tmp_path)
    runs = example("common.command_line").run(example(family), options)
    losses = runs[name].history["loss"]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert runs[name].scores
    assert all(math.isfinite(score) for score in runs[name].scores.values())
    printed = capsys.readouterr().out
    assert name in printed
    assert all(f"test {score}" in printed for score in runs[name].scores)
    assert (tmp_path / f"{family}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_touches_the_same_layers(family):
    module = example(family)
    options = small(family)
    data = module.load_data(options)
    touched = []
    for method in ("none", "row_equilibration", "spectral_normalization"):
        # Automatic names start anew.
        keras.utils.clear_session(free_memory=False)
        touched.append(conditioned_names(module.build(method, data, options)))
    none, first, second = touched
    assert none == []
    assert first == second
    assert first
    assert not {"head", "first", "patches", "density", "color"} & set(first)


@pytest.mark.parametrize("family", FAMILIES)
def test_initial_scale_reaches_what_is_touched_and_nothing_else(family):
    module = example(family)
    data = module.load_data(small(family))
    built = []
    for scale, name in ((1.0, "none"), (3.0, "none"), (1.0, "row_equilibration")):
        keras.utils.set_random_seed(0)
        keras.utils.clear_session(free_memory=False)
        built.append(module.build(name, data, small(family, initial_scale=scale)))
    touched = conditioned_names(built[2])
    one, three = (
        [
            (layer.name, [keras.ops.convert_to_numpy(weight) for weight in layer.weights])
            for field in fields_of(model)
            for layer in field.layers
        ]
        for model in built[:2]
    )
    scaled = []
    for (name, weights), (_, larger) in zip(one, three, strict=True):
        for weight, other in zip(weights, larger, strict=True):
            is_kernel = weight.ndim > 1 and np.abs(weight).max() > 0.0
            factor = 3.0 if name in touched and is_kernel else 1.0
            np.testing.assert_allclose(other, factor * weight, rtol=1e-5, atol=1e-6)
            scaled += [name] if factor > 1.0 else []
    assert set(scaled) == set(touched)


@pytest.mark.parametrize("family", ["vit", "shape"])
def test_everywhere(family):
    module = example(family)
    options = small(family)
    data = module.load_data(options)
    keras.utils.clear_session(free_memory=False)
    model = module.build("row_equilibration+everywhere", data, options)
    names = set(conditioned_names(model))
    everything = {
        layer.name
        for field in fields_of(model)
        for layer in field.layers
        if hasattr(layer, "kernel") or "attention" in layer.name.split("_")[-1:]
    }
    assert names == everything
    assert "head" in names


@pytest.mark.parametrize("family", ["vit", "nerf", "shape"])
def test_custom_layers_work_in_low_precision(family):
    module = example(family)
    options = small(family)
    data = module.load_data(options)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = module.build("row_equilibration", data, options)
    finally:
        keras.config.set_dtype_policy("float32")
    inputs = {
        "vit": np.ones((2, 8, 8, 1), "float32"),
        "nerf": np.ones((2, 6), "float32"),
        "shape": np.ones((2, 3), "float32"),
    }[family]
    outputs = model(inputs)
    outputs = outputs["fine"] if family == "nerf" else outputs
    assert np.isfinite(keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32"))).all()


def test_positions_that_come_in_again_keep_their_precision_too():
    nerf = example("nerf")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        options = small("nerf", depth=6)
        model = nerf.build("row_equilibration", nerf.load_data(options), options)
    finally:
        keras.config.set_dtype_policy("float32")
    precise = [
        layer.name
        for layer in model.fine.layers
        if isinstance(layer, keras.layers.Dense) and layer.compute_dtype == "float32"
    ]
    assert precise == ["first", "hidden_3"]
