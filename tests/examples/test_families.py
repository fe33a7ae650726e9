"""The five families of examples: a few real steps of each, and what all have in common."""

import itertools
import math
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_wcond import fold_model
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


def test_unit_rows_at_start_is_a_plain_network_that_starts_as_the_equilibrated_one():
    deep = example("deep")
    options = small("deep")
    data = deep.load_data(options)
    outputs = []
    for name in ("row_equilibration", "unit_rows_at_start"):
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
        "none+everywhere",
    ],
)  # fmt: skip
def test_unknown_normalization(name):
    with pytest.raises(ValueError, match=r"Expected a normalization: one of none, batch.*Received"):
        example("common.normalizations").parse(name)


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


def test_what_stands_alone():
    with pytest.raises(ValueError, match="weight_normalization and unit_rows_at_start stand alone"):
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


def test_command_line_takes_a_recipe_and_changes(tmp_path, monkeypatch):
    command_line, deep = example("common.command_line"), example("deep")
    seen = []
    monkeypatch.setattr(command_line, "run", lambda family, options: seen.append(options))
    command_line.main(deep, ["fashion_mnist", "--epochs", "3", "--gain", "0.5"])
    command_line.main(deep, ["--normalizations", "none"])
    first, second = seen
    assert (first.data, first.epochs, first.gain, first.train_images) == (
        "fashion_mnist", 3, 0.5, 10_000
    )  # fmt: skip
    assert (second.data, second.normalizations) == ("digits", ("none",))


def test_a_bad_setting_ends_with_a_message(capsys):
    with pytest.raises(SystemExit) as raised:
        example("common.command_line").main(
            example("cnn"), ["digits", "--normalizations", "nonsense"]
        )
    assert "cnn.py: Expected a normalization" in str(raised.value)


def test_no_normalization_at_all():
    with pytest.raises(ValueError, match=r"at least one of --normalizations. Received: none"):
        example("common.command_line").run(example("deep"), small("deep", normalizations=()))


@pytest.mark.parametrize(
    ("family", "recipe", "option"),
    [("nerf", "blender", "--scene"), ("nerf", "llff", "--scene"), ("shape", "mesh", "--mesh")],
)
def test_recipes_that_read_files_ask_for_them(family, recipe, option, capsys, monkeypatch):
    command_line = example("common.command_line")
    monkeypatch.setattr(command_line, "run", lambda family, options: None)
    with pytest.raises(SystemExit):
        command_line.main(example(family), [recipe])
    assert option in "".join(capsys.readouterr())


def test_predictions_of_any_number_on_any_number_of_devices(monkeypatch):
    training = example("common.training")
    monkeypatch.setattr(training, "devices", lambda: 3)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    sizes = []
    monkeypatch.setattr(
        model, "predict",
        lambda x, batch_size, verbose: sizes.append((len(x), batch_size)) or {"sum": x.sum(axis=1)},
    )  # fmt: skip
    inputs = np.arange(20.0).reshape(10, 2)
    np.testing.assert_array_equal(training.predict(model, inputs, 4)["sum"], inputs.sum(axis=1))
    assert sizes == [(12, 6)]


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX can distribute")
def test_batches_are_split_over_devices(tmp_path):
    """Three devices, which share none of these numbers evenly."""
    examples = pathlib.Path(__file__).parents[2] / "examples"
    words = {
        "deep": ["--depth", "3", "--train-images", "250"],
        "shape": [
            "--depth", "2", "--width", "8", "--points", "1000", "--test-points", "1000",
            "--resolution", "16", "--steps-per-epoch", "20",
        ],
    }  # fmt: skip
    common = ["--distribute", "--batch-size", "64", "--epochs", "1", "--normalizations", "none"]
    program = "import importlib, sys\nfrom common import command_line\n" + "\n".join(
        f"command_line.main(importlib.import_module({family!r}), {[*own, *common]!r})"
        for family, own in words.items()
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(examples), str(examples.parent), os.environ.get("PYTHONPATH", "")]
            ),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=3",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "outputs").glob("*.png")} == {"deep.png", "shape.png"}


def test_a_bad_name_is_told_before_anything_is_trained(monkeypatch):
    deep = example("deep")
    monkeypatch.setattr(deep, "load_data", None)
    with pytest.raises(ValueError, match="Expected a normalization"):
        example("common.command_line").run(deep, small("deep", normalizations=("none", "rows")))


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX can distribute")
def test_distribution_needs_jax():
    with pytest.raises(ValueError, match=r"distribution API, jax.*Received: --distribute"):
        example("common.command_line").run(example("deep"), small("deep", distribute=True))


def test_labels_are_smoothed():
    smoothed = example("common.classification").SmoothedCrossentropy(4, 0.2)
    logits = np.array([[2.0, -1.0, 0.5, 0.0], [0.0, 1.0, 3.0, -2.0]], "float32")
    labels = np.array([0, 2], "int32")
    logarithms = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    targets = 0.8 * np.eye(4)[labels] + 0.05
    expected = -(targets * logarithms).sum(axis=-1).mean()
    for shape in ((2,), (2, 1)):
        value = smoothed(labels.reshape(shape), keras.ops.convert_to_tensor(logits))
        assert float(value) == pytest.approx(expected, rel=1e-5)


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


def test_coordinates_keep_their_precision_in_mixed_precision():
    shape = example("shape")
    options = small("shape")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = shape.build("none", shape.load_data(options), options)
        first = model.get_layer("first")
        seen = keras.Model(model.inputs, first.output)
    finally:
        keras.config.set_dtype_policy("float32")
    points = np.random.default_rng(0).uniform(-1.0, 1.0, (64, 3)).astype("float32")
    kernel, bias = map(keras.ops.convert_to_numpy, first.weights)
    # Eight bits of a coordinate would be wrong by some thousandths.
    outputs = keras.ops.convert_to_numpy(seen(points))
    np.testing.assert_allclose(outputs, points @ kernel + bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("first", "bound"), [(True, 1 / 40), (False, math.sqrt(6 / 40) / 30.0)])
def test_sines_start_as_published(first, bound):
    shape = example("shape")
    options = shape.Options(activation="sine")
    kernel = example("common.coordinates").initializer(options, 40, first)((40, 500))
    largest = float(keras.ops.max(keras.ops.abs(kernel)))
    assert 0.99 * bound < largest <= bound * (1 + 1e-6)


def test_help_tells_recipes_and_options(capsys):
    command_line = example("common.command_line")
    for words, expected in (
        (["--help"], ["digits", "imagenet", "KERAS_BACKEND"]),
        (["digits", "--help"], ["--normalizations", "--initial-scale", "--train-images"]),
    ):
        with pytest.raises(SystemExit) as raised:
            command_line.main(example("cnn"), words)
        assert raised.value.code == 0
        printed = capsys.readouterr().out
        assert all(word in printed for word in expected)


def test_rates_rise_and_fall():
    training = example("common.training")
    options = training.TrainingOptions(epochs=12, warmup_epochs=2, learning_rate=0.3)
    schedule = training.schedule(options).schedule
    rates = [schedule(epoch, None) for epoch in range(12)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[2:]))
    # The middle of the descent, by the cosine.
    assert rates[7] == pytest.approx(0.15)
    assert rates[-1] > 0.0


def test_biases_and_gains_do_not_decay():
    training = example("common.training")
    options = training.TrainingOptions(weight_decay=0.5, optimizer="sgd", learning_rate=0.1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, bias_initializer="ones")])
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel)
    model.compile(training.optimizer(options), "mse")
    zeros = [keras.ops.zeros(weight.shape) for weight in model.trainable_weights]
    model.optimizer.build(model.trainable_variables)
    model.optimizer.apply(zeros, model.trainable_variables)
    after, bias = map(keras.ops.convert_to_numpy, model.layers[0].weights)
    np.testing.assert_allclose(after, 0.95 * kernel, rtol=1e-6)
    np.testing.assert_array_equal(bias, 1.0)
