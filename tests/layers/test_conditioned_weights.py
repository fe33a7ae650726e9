"""Which weights `Conditioned` conditions, and what copies and files keep of them."""

import copy
import pickle

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned, ConditionedDense
from tests.helpers import normal, to_numpy
from tests.layers.wrapped_layers import SEQUENCES, Block, BuiltByCall, layers, model_of
from tests.reference import row_norms


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ("mixing", ["mixing"]),
        ("dense*/kernel", ["kernel", "kernel"]),
        (["mixing", "*/kernel"], ["mixing", "kernel", "kernel"]),
        ({"mixing": 0, "*/kernel": -1}, ["mixing", "kernel", "kernel"]),
    ],
    ids=str,
)
def test_weights_are_named_by_patterns(weights, names, tmp_path):
    wrapped = Conditioned(Block(), weights=weights)
    model = model_of(wrapped, SEQUENCES)
    assert [kernel.name for kernel in wrapped.raw_kernels.values()] == names
    rows_first = isinstance(weights, dict)
    for path, kernel in wrapped.conditioned_kernels.items():
        letters = "ui->u" if path == "mixing" and rows_first else "iu->u"
        np.testing.assert_allclose(row_norms(to_numpy(kernel), letters), 1.0, rtol=1e-5)
    # A layer that is loaded gives its inner layers other names.
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [k.name for k in loaded.layers[1].raw_kernels.values()] == names
    np.testing.assert_array_equal(
        loaded.predict(SEQUENCES, verbose=0), model.predict(SEQUENCES, verbose=0)
    )


def test_paths_that_look_like_patterns_are_paths():
    inner = keras.Sequential([layers.Dense(4, name="b[1]"), layers.Dense(4, name="b1")])
    wrapped = Conditioned(inner, weights="b[1]/kernel")
    wrapped(SEQUENCES)
    assert list(wrapped.raw_kernels) == ["b[1]/kernel"]


@pytest.mark.parametrize("weights", [None, "*/kernel"])
def test_layers_of_one_name_are_told_apart(weights):
    class Twins(BuiltByCall):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers.Dense(5, name="twin"), layers.Dense(4, name="twin")

    wrapped = Conditioned(Twins(), gain="initial_norm", weights=weights)
    wrapped(SEQUENCES)
    assert list(wrapped.raw_kernels) == ["twin/kernel", "twin/kernel_1"]
    assert [kernel.shape for kernel in wrapped.raw_kernels.values()] == [(3, 5), (5, 4)]
    assert len(wrapped.gain_weights) == len(wrapped.conditioned_kernels) == 2


def through_clone(layer):
    twin = keras.models.clone_model(model_of(layer, SEQUENCES)).layers[1]
    twin.set_weights(layer.get_weights())
    return twin


def through_config(layer):
    twin = Conditioned.from_config(layer.get_config())
    twin(SEQUENCES)
    twin.set_weights(layer.get_weights())
    return twin


@pytest.mark.parametrize(
    "way", [through_clone, through_config, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_survives_copying(way):
    layer = Conditioned(layers.LSTM(4), gain="initial_norm", trainable_gain="scalar")
    layer(SEQUENCES)
    for seed, variable in enumerate(layer.trainable_variables):
        variable.assign(variable + np.abs(normal(*variable.shape, seed=seed)))
    twin = way(layer)
    assert type(twin) is Conditioned
    np.testing.assert_array_equal(to_numpy(twin(SEQUENCES)), to_numpy(layer(SEQUENCES)))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_takes_the_dtype_of_the_wrapped_layer(policy):
    if policy == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless jax_enable_x64 is set")
    wrapped = Conditioned(layers.LSTM(4, dtype=policy))
    outputs = wrapped(SEQUENCES)
    assert keras.backend.standardize_dtype(outputs.dtype) == wrapped.layer.compute_dtype
    assert wrapped.dtype_policy == wrapped.layer.dtype_policy
    kernel = wrapped.conditioned_kernels["lstm_cell/kernel"]
    assert keras.backend.standardize_dtype(kernel.dtype) == wrapped.layer.compute_dtype


def test_a_trained_layer_keeps_its_weights_and_its_scale():
    layer = layers.LSTM(4)
    layer(SEQUENCES)
    weights = [3.0 * weight for weight in layer.get_weights()]
    layer.set_weights(weights)
    wrapped = Conditioned(layer, gain="initial_norm")
    wrapped(SEQUENCES)
    for weight, value in zip(layer.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, value)
    for path, kernel in wrapped.conditioned_kernels.items():
        raw = to_numpy(wrapped.raw_kernels[path])
        np.testing.assert_allclose(np.linalg.norm(to_numpy(kernel)), np.linalg.norm(raw), rtol=1e-5)


def test_automatic_gain_is_that_of_the_owner_of_each_kernel():
    wrapped = Conditioned(BuiltByCall(), gain="auto")
    wrapped(SEQUENCES)
    first, second = wrapped.conditioned_kernels.values()
    np.testing.assert_allclose(np.linalg.norm(to_numpy(first), axis=0), np.sqrt(2.0), rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(to_numpy(second), axis=0), 1.0, rtol=1e-4)


def test_automatic_names_are_unique():
    inputs = keras.Input((8,))
    hidden = ConditionedDense(6)(Conditioned(layers.Dense(4))(inputs))
    hidden = Conditioned(layers.Dense(4, name="dense_1"))(ConditionedDense(6)(hidden))
    model = keras.Model(inputs, Conditioned(layers.Dense(4))(hidden))
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    assert Conditioned(layers.Dense(4), name="mine").name == "mine"
