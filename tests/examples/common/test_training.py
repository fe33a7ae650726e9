"""Learning rates, weight decay, and batches on several devices."""

import dataclasses
import itertools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.examples.loading import EXAMPLES, example
from tests.examples.small_networks import small


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
                [str(EXAMPLES), str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]
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
    model.optimizer_conditioning = None
    model.compile(training.optimizer(options, model), "mse")
    zeros = [keras.ops.zeros(weight.shape) for weight in model.trainable_weights]
    model.optimizer.build(model.trainable_variables)
    model.optimizer.apply(zeros, model.trainable_variables)
    after, bias = map(keras.ops.convert_to_numpy, model.layers[0].weights)
    np.testing.assert_allclose(after, 0.95 * kernel, rtol=1e-6)
    np.testing.assert_array_equal(bias, 1.0)


def test_a_part_of_each_epoch():
    training = example("common.training")

    class Numbers(keras.utils.PyDataset):
        epoch = 0

        def __len__(self):
            return 10

        def __getitem__(self, index):
            return index, self.epoch

        def on_epoch_end(self):
            self.epoch += 1

    part = training.FirstBatches(Numbers(workers=2), 0.37)
    assert part.workers == 2
    assert [part[index] for index in range(len(part))] == [(0, 0), (1, 0), (2, 0)]
    part.on_epoch_end()
    assert part[2] == (2, 1)
    assert len(training.FirstBatches(Numbers(), 0.01)) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_optimizers_by_name(optimizer):
    deep = example("deep")
    options = dataclasses.replace(small("deep"), optimizer=optimizer, weight_decay=0.1)
    data = deep.load_data(options)
    model = deep.build("none", data, options)
    deep.train(model, data, options)
    assert type(model.optimizer).__name__.lower() == optimizer
    if optimizer == "muon":
        # Of matrices but the last one: Muon, which has one momentum and no velocity.
        by_muon = [
            variable.path
            for variable, velocity in zip(
                model.trainable_variables, model.optimizer.adam_velocities, strict=True
            )
            if velocity is None
        ]
        assert by_muon == [f"{name}/kernel" for name in MATRICES]


MATRICES = ("first", "hidden_1", "hidden_2", "hidden_3")


def test_orthogonal_updates_take_the_place_of_those_of_muon():
    deep, training = example("deep"), example("common.training")
    options = dataclasses.replace(small("deep"), optimizer="muon")
    model = deep.build("orthogonal_updates", deep.load_data(options), options)
    optimizer = training.optimizer(options, model)
    assert optimizer.get_config()["optimizer"]["config"]["ns_steps"] == 0
    weights = model.trainable_variables
    before = [keras.ops.convert_to_numpy(weight) for weight in weights]
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=weight.shape).astype("float32") for weight in weights]
    optimizer.apply([*map(keras.ops.convert_to_tensor, gradients)], weights)
    updates = {
        weight.path: keras.ops.convert_to_numpy(weight) - start
        for weight, start in zip(weights, before, strict=True)
    }
    for name in MATRICES:
        update = updates[f"{name}/kernel"]
        rate = options.learning_rate * 0.2 * np.sqrt(max(update.shape))
        # Three steps leave singular values between 0.73 and 1.27.
        np.testing.assert_allclose(np.linalg.svd(update)[1], rate, rtol=0.28)
