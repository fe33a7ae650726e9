"""Files written on one backend compute the same on the others."""

import json
import zipfile

import keras
import numpy as np
import pytest

from tests import interchange, saved_layers

BACKENDS = ("tensorflow", "jax", "torch")


def committed(name):
    """The path of a file, which a backend or an earlier version wrote."""
    path = interchange.DATA / f"{name}.keras"
    with zipfile.ZipFile(path) as archive:
        written_by = json.loads(archive.read("metadata.json"))["keras_version"]
    if version(keras.__version__) < version(written_by):
        pytest.skip(f"Keras {keras.__version__} does not read files of Keras {written_by}")
    return path


def version(text):
    return tuple(int(part) for part in text.split(".")[:2])


@pytest.mark.parametrize("writer", BACKENDS)
def test_file_of_every_backend_computes_the_same_here(writer):
    loaded = keras.models.load_model(committed(writer))
    outputs = loaded.predict(interchange.inputs(), verbose=0)
    expected = np.load(interchange.DATA / f"{writer}.npz")["outputs"]
    assert np.max(np.abs(outputs - expected)) <= 1e-5 * np.max(np.abs(expected))


def test_file_written_now_is_the_one_the_others_read(tmp_path):
    """Ties the committed files to today's code: the same weights, and the same outputs."""
    model = interchange.model()
    model.save(tmp_path / "model.keras")
    written = keras.models.load_model(tmp_path / "model.keras")
    earlier = keras.models.load_model(committed(keras.backend.backend()))
    for ours, theirs in zip(written.weights, earlier.weights, strict=True):
        assert ours.name == theirs.name
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs)
        )
    np.testing.assert_array_equal(
        written.predict(interchange.inputs(), verbose=0),
        model.predict(interchange.inputs(), verbose=0),
    )


def test_config_written_now_is_the_one_the_others_read(tmp_path):
    earlier = keras.models.load_model(committed(keras.backend.backend()))
    for ours, theirs in zip(interchange.model().layers, earlier.layers, strict=True):
        assert own_config(ours) == own_config(theirs)


def own_config(layer):
    """What a layer says of itself; a wrapped layer's config holds ids of its objects."""
    return {**layer.get_config(), "name": None, "layer": None}


@pytest.mark.parametrize("kind", ["model", "weights"])
def test_files_of_the_first_version_compute_the_same_for_every_layer(kind):
    path = committed(saved_layers.NAME)
    if kind == "model":
        loaded = keras.models.load_model(path)
    else:
        loaded = saved_layers.model()
        for weight in loaded.weights:
            weight.assign(np.zeros(weight.shape))
        loaded.load_weights(path.with_suffix(".weights.h5"))
    expected = np.load(path.with_suffix(".npz"))["outputs"]
    outputs = loaded.predict(saved_layers.arrays(), verbose=0)
    assert np.max(np.abs(outputs - expected)) <= 1e-5 * np.max(np.abs(expected))
