"""Files and configs that are damaged, from another version, or written to run code."""

import json
import shutil
import zipfile

import keras
import numpy as np
import pytest

from keras_wcond import (
    Conditioned,
    ConditionedDense,
    WeightConditioning,
    condition_optimizer,
    conditioners,
)
from tests.helpers import normal, to_numpy


def make_model():
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            ConditionedDense(4, gain="initial_norm"),
            Conditioned(keras.layers.GRU(3), "newton_step"),
            keras.layers.Dense(2),
        ]
    )
    optimizer = condition_optimizer("adam", model, "polar_express", "newton_step", every=2)
    model.compile(optimizer, "mse", run_eagerly=True)
    model.fit(normal(2, 4, 3), normal(2, 2), verbose=0)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    make_model().save(path)
    return path


def rewritten(saved, tmp_path, change):
    """A copy of the file, whose configuration is changed."""
    path = tmp_path / "changed.keras"
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config)
            target.writestr(name, content)
    return path


def config_of(config, class_name):
    """The config of the first object of a class in the configuration of a model."""
    if isinstance(config, dict):
        if config.get("registered_name") == f"keras_wcond>{class_name}":
            return config["config"]
        config = [*config.values()]
    if isinstance(config, list):
        return next((found for x in config if (found := config_of(x, class_name))), None)
    return None


def test_a_file_that_is_only_written_again_is_read(saved, tmp_path):
    loaded = keras.saving.load_model(rewritten(saved, tmp_path, lambda config: None))
    x = normal(2, 4, 3)
    original = keras.saving.load_model(saved)
    np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(original(x)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_file_is_refused(saved, tmp_path, share):
    path = tmp_path / "truncated.keras"
    content = saved.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"accessible `\.keras` zip file"):
        keras.saving.load_model(path)


def test_flipped_bytes_are_refused(saved, tmp_path):
    path = tmp_path / "flipped.keras"
    shutil.copy(saved, path)
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("config.json").header_offset + 200
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises((zipfile.BadZipFile, ValueError), match=r"CRC-32|decompress"):
        keras.saving.load_model(path)


def test_kernels_of_another_shape_are_refused(saved, tmp_path):
    def widen(config):
        config_of(config, "ConditionedDense")["units"] = 5

    with pytest.raises(ValueError, match=r"Expected weights of shape \(3, 5\).*Received: shape"):
        keras.saving.load_model(rewritten(saved, tmp_path, widen))


@pytest.mark.parametrize("class_name", ["ConditionedDense", "Conditioned", "NewtonStep"])
def test_arguments_of_a_later_version_are_named(saved, tmp_path, class_name):
    def add(config):
        config_of(config, class_name)["from_later"] = 1

    with pytest.raises((TypeError, ValueError), match="from_later"):
        keras.saving.load_model(rewritten(saved, tmp_path, add))


def test_layers_of_an_earlier_version_have_the_defaults(saved, tmp_path):
    def leave_out(config):
        del config_of(config, "ConditionedDense")["trainable_gain"]

    loaded = keras.saving.load_model(rewritten(saved, tmp_path, leave_out))
    assert loaded.layers[0].trainable_gain is None


@pytest.mark.parametrize("change", ["missing", "later"])
def test_optimizers_of_another_version_are_refused(change):
    optimizer = make_model().optimizer
    config = optimizer.get_config()
    if change == "missing":
        del config["every"]
    else:
        config["from_later"] = 1
    with pytest.raises(ValueError, match=r"Expected the config of a conditioned.*Received: config"):
        type(optimizer).from_config(config)


def unsafe_configs():
    command = {"module": "os", "class_name": "system", "config": {"command": "true"}}
    function = {"module": "os", "class_name": "function", "config": "getcwd"}
    file = {"module": "keras.utils", "class_name": "get_file", "config": {"fname": "x"}}
    return {
        "a class of another package": {**command, "registered_name": None},
        "a function of another package": {**function, "registered_name": "function"},
        "a function of Keras": {**file, "registered_name": None},
        "code": {
            "class_name": "__lambda__",
            "config": {"value": ["4wEAAA==\n", None, None]},
        },
        "a layer": keras.saving.serialize_keras_object(keras.layers.Dense(2)),
        "a path": "os.system",
        "nothing": {},
    }


MESSAGES = (
    r"Could not locate|loading functions are not allowed|not a modeling function|Python lambda"
    r"|Expected a conditioner to be|Expected the name of a conditioner"
)


@pytest.mark.parametrize("kind", unsafe_configs())
@pytest.mark.parametrize("by", [conditioners.deserialize, conditioners.get, "layer", "constraint"])
def test_what_is_no_conditioner_is_refused(kind, by):
    if by == "layer":
        by, dense = ConditionedDense.from_config, ConditionedDense(2).get_config()
        config = {**dense, "kernel_conditioner": unsafe_configs()[kind]}
    elif by == "constraint":
        by, constraint = WeightConditioning.from_config, WeightConditioning().get_config()
        config = {**constraint, "kernel_conditioner": unsafe_configs()[kind]}
    else:
        config = unsafe_configs()[kind]
    with pytest.raises((TypeError, ValueError), match=MESSAGES):
        by(config)


@pytest.mark.parametrize("kind", unsafe_configs())
@pytest.mark.parametrize("owner", ["ConditionedDense", "Conditioned", "ConditionedOptimizer"])
def test_files_with_what_is_no_conditioner_are_refused(saved, tmp_path, kind, owner):
    name = "update_conditioner" if owner == "ConditionedOptimizer" else "kernel_conditioner"

    def put_in(config):
        config_of(config, owner)[name] = unsafe_configs()[kind]

    with pytest.raises((TypeError, ValueError), match=MESSAGES):
        keras.saving.load_model(rewritten(saved, tmp_path, put_in))
