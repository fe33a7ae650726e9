"""Files and copies: the raw kernel is kept exactly, and so is what the layer computes."""

import copy
import pickle
import re
import warnings

import keras
import numpy as np
import pytest

import keras_wcond
from keras_wcond import Conditioned
from keras_wcond.conditioners import NewtonOrthogonalization
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning
from tests.helpers import normal, to_numpy
from tests.layers.cases import CASES, every_layer
from tests.reference import equilibrated_along

GAINS = {
    "fixed": {"gain": 2.0},
    "initial_norm": {"gain": "initial_norm"},
    "trained": {"gain": "auto", "trainable_gain": "per_unit"},
    "trained, initial_norm": {"gain": "initial_norm", "trainable_gain": "scalar"},
}
every_gain = pytest.mark.parametrize("gain", GAINS.values(), ids=GAINS.keys())


def moved(layer):
    """The layer with weights as training might leave them, off their initial values."""
    for seed, variable in enumerate(layer.variables):
        variable.assign(variable + 0.5 * np.abs(normal(*variable.shape, seed=seed)))
    return layer


def through_file(layer, case, tmp_path):
    case.model(layer).save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras").layers[-2]


def through_clone(layer, case, tmp_path):
    model = case.model(layer)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone.layers[-2]


def through_config(layer, case, tmp_path):
    twin = case.built(type(layer).from_config(layer.get_config()))
    twin.set_weights(layer.get_weights())
    return twin


def through_weights(layer, case, tmp_path):
    case.model(layer).save_weights(tmp_path / "model.weights.h5")
    twin = case.model(type(layer).from_config(layer.get_config()))
    twin.load_weights(tmp_path / "model.weights.h5")
    return twin.layers[-2]


def through_pickle(layer, case, tmp_path):
    return pickle.loads(pickle.dumps(layer))


def through_deepcopy(layer, case, tmp_path):
    return copy.deepcopy(layer)


every_way = pytest.mark.parametrize(
    "way",
    [
        through_file,
        through_clone,
        through_config,
        through_weights,
        through_pickle,
        through_deepcopy,
    ],
)


@every_layer
@every_way
def test_every_layer_survives_copying(case, way, tmp_path):
    require_same_after(way, case, GAINS["trained, initial_norm"], tmp_path)


@every_gain
@every_way
def test_every_gain_survives_copying(gain, way, tmp_path):
    require_same_after(way, CASES["Dense"], gain, tmp_path)


def require_same_after(way, case, gain, tmp_path):
    layer = moved(case.layer(**gain))
    twin = way(layer, case, tmp_path)
    assert type(twin) is type(layer)
    assert twin is not layer
    assert twin.get_config() == {**layer.get_config(), "name": twin.name}
    for path, kernel in layer.raw_kernels.items():
        np.testing.assert_array_equal(to_numpy(twin.raw_kernels[path]), to_numpy(kernel))
    inputs = case.inputs()
    np.testing.assert_array_equal(to_numpy(twin(*inputs)), to_numpy(layer(*inputs)))


@every_layer
@pytest.mark.parametrize("gain", [{"gain": 2.0}, GAINS["trained, initial_norm"]], ids=str)
def test_plain_weights_load_into_the_conditioned_layer(case, gain, tmp_path):
    plain = moved(case.plain_layer())
    case.model(plain).save_weights(tmp_path / "plain.weights.h5")
    layer = case.conditioned(**case.arguments, **gain)
    case.model(layer).load_weights(tmp_path / "plain.weights.h5")
    gains = {id(weight) for weight in layer.gain_weights}
    loaded = [to_numpy(weight) for weight in layer.weights if id(weight) not in gains]
    for ours, theirs in zip(loaded, plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # As a layer that was initialized with these weights would be.
    for path, axes in case.axes.items():
        raw, conditioned = layer.raw_kernels[path], layer.conditioned_kernels[path]
        expected = equilibrated_along(to_numpy(raw), axes)
        scale = 2.0
        if gain["gain"] == "initial_norm":
            scale = np.linalg.norm(to_numpy(raw)) / np.linalg.norm(expected)
        np.testing.assert_allclose(to_numpy(conditioned), scale * expected, rtol=1e-5)


@every_layer
def test_conditioned_weights_load_into_the_plain_layer(case, tmp_path):
    layer = moved(case.layer())
    case.model(layer).save_weights(tmp_path / "conditioned.weights.h5")
    plain = case.plain(**case.arguments)
    case.model(plain).load_weights(tmp_path / "conditioned.weights.h5")
    for ours, theirs in zip(layer.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_files_of_whole_models_are_shared_with_plain_ones(tmp_path, suffix):
    """Plain and conditioned layers side by side, all of one shape."""

    def model(hidden):
        kinds = [hidden, keras.layers.Dense, hidden, keras.layers.Dense]
        layers = [kind(3, kernel_initializer="normal") for kind in kinds]
        return keras.Sequential([keras.Input((3,)), *layers])

    path = tmp_path / f"model{suffix}"
    for kinds in ("plain to conditioned", "conditioned to plain"):
        source, target = model(keras.layers.Dense), model(keras_wcond.ConditionedDense)
        if kinds == "conditioned to plain":
            source, target = target, source
        source.save(path) if suffix == ".keras" else source.save_weights(path)
        target.load_weights(path)
        for ours, theirs in zip(target.get_weights(), source.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def warnings_of_loading(model, path):
    """What `load_weights()` says of conditioning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.load_weights(path)
    return {str(w.message) for w in caught if "kernel_conditioner" in str(w.message)}


@every_layer
@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"kernel_conditioner": None}, "kernel_conditioner=None,"),
        ({"gain": 2.0}, "kernel_conditioner=row_equilibration, gain=2.0,"),
        (
            {"kernel_conditioner": NewtonOrthogonalization(iterations=3)},
            r"kernel_conditioner=NewtonOrthogonalization\(.*iterations=3.*\), gain=1.0,",
        ),
    ],
    ids=["none", "gain", "method"],
)
def test_weights_saved_with_another_conditioning_are_loaded_with_a_warning(
    case, arguments, received, tmp_path
):
    path = tmp_path / "m.weights.h5"
    case.model(case.layer()).save_weights(path)
    (message,) = warnings_of_loading(case.model(case.layer(**arguments)), path)
    assert "saved by layers with kernel_conditioner=row_equilibration, gain=1.0," in message
    assert re.search(f"are loaded into layers with {received}", message)
    assert "`fold()` or `fold_model()`" in message


@every_layer
def test_weights_of_the_same_conditioning_and_plain_ones_are_loaded_quietly(case, tmp_path):
    path = tmp_path / "m.weights.h5"
    layer = case.layer(gain=3.0)
    sources = (layer, case.layer(kernel_conditioner=None), case.plain_layer(), layer.fold())
    for source in sources:
        case.model(source).save_weights(path)
        same = type(layer).from_config(layer.get_config())
        assert not warnings_of_loading(case.model(same), path)


def test_wrapped_layers_warn_of_another_conditioning_too(tmp_path):
    def model(**arguments):
        wrapped = Conditioned(keras.layers.LSTM(3, name="lstm"), name="wrapped", **arguments)
        return keras.Sequential([keras.Input((5, 2)), wrapped])

    path = tmp_path / "m.weights.h5"
    model().save_weights(path)
    assert not warnings_of_loading(model(), path)
    (message,) = warnings_of_loading(model(kernel_conditioner="ruiz_equilibration"), path)
    assert "are loaded into layers with kernel_conditioner=ruiz_equilibration" in message
    (message,) = warnings_of_loading(model(kernel_conditioner=None), path)
    assert "are loaded into layers with kernel_conditioner=None" in message


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        ({"gain": "initial_norm"}, {"trainable_gain": "scalar"}),
        ({}, {"trainable_gain": "per_unit"}),
        ({"kernel_conditioner": ["row_equilibration"]}, {}),
    ],
    ids=["the gain is in the file", "the gain starts where it was", "a list of one"],
)
@pytest.mark.parametrize("name", ["Dense", "MultiHeadAttention"])
def test_weights_that_compute_the_same_are_loaded_quietly(name, saved, loaded, tmp_path):
    case, path = CASES[name], tmp_path / "m.weights.h5"
    source, target = case.layer(**saved), case.layer(**loaded)
    case.model(source).save_weights(path)
    assert not warnings_of_loading(case.model(target), path)
    inputs = case.inputs()
    np.testing.assert_allclose(to_numpy(target(*inputs)), to_numpy(source(*inputs)), rtol=1e-5)


def test_the_warning_is_shown_once_for_a_whole_model(tmp_path):
    def model(**arguments):
        layers = [keras_wcond.ConditionedDense(3, name=f"d{i}", **arguments) for i in range(4)]
        return keras.Sequential([keras.Input((3,)), *layers])

    path = tmp_path / "m.weights.h5"
    model().save_weights(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        model(gain=2.0).load_weights(path)
    assert len([w for w in caught if "kernel_conditioner" in str(w.message)]) == 1


def test_files_of_several_parts_carry_the_note(tmp_path):
    def model(**arguments):
        layers = [keras_wcond.ConditionedDense(64, name=f"d{i}", **arguments) for i in range(4)]
        return keras.Sequential([keras.Input((64,)), *layers])

    model().save_weights(tmp_path / "m.weights.json", max_shard_size=2e-5)
    assert len(list(tmp_path.glob("*.h5"))) > 1
    assert not warnings_of_loading(model(), tmp_path / "m.weights.json")
    assert len(warnings_of_loading(model(gain=2.0), tmp_path / "m.weights.json")) == 1


def test_layers_are_told_apart_by_name_and_registered_by_their_own():
    keras.utils.clear_session(free_memory=False)
    layers = [keras_wcond.ConditionedConv2D(4, 3), keras_wcond.ConditionedConv2D(4, 3)]
    assert [layer.name for layer in layers] == ["conditioned_conv2d", "conditioned_conv2d_1"]
    config = keras.layers.serialize(layers[0])
    assert config["registered_name"] == "keras_wcond>ConditionedConv2D"
    assert type(keras.layers.deserialize(config)) is keras_wcond.ConditionedConv2D


def test_gain_that_is_a_weight_is_not_lost_in_a_plain_layer(tmp_path):
    """The plain layer has no place for it, so the file is refused; folding is the way."""
    case = CASES["Dense"]
    case.model(case.layer(gain="initial_norm")).save_weights(tmp_path / "gain.weights.h5")
    plain = case.model(case.plain(**case.arguments))
    with pytest.raises(ValueError, match="expected 2 variables"):
        plain.load_weights(tmp_path / "gain.weights.h5")


@every_layer
def test_weights_of_another_shape_are_refused_and_nothing_is_changed(case, tmp_path):
    if not isinstance(case.layer(), KernelConditioning):
        pytest.skip("the projections of attention are EinsumDense layers, which are tested here")
    sizes = {"units": 8, "filters": 8, "depth_multiplier": 8}
    changed = next(({name: 8} for name in sizes if name in case.arguments), None)
    changed = changed or {"output_shape": (*case.arguments["output_shape"][:-1], 8)}
    other = case.conditioned(**{**case.arguments, **changed})
    case.model(other).save_weights(tmp_path / "other.weights.h5")
    layer = case.layer(name="mine")
    before = layer.get_weights()
    message = r"Expected weights of shape .* for the \w+ of layer 'mine'. Received: shape=.*8"
    with pytest.raises(ValueError, match=message):
        case.model(layer).load_weights(tmp_path / "other.weights.h5")
    for weight, value in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize("name", ["Dense", "Conv1DTranspose"])
def test_bias_that_the_layer_lacks_is_not_taken_for_a_gain(name, tmp_path):
    case = CASES[name]
    case.model(case.plain_layer()).save_weights(tmp_path / "bias.weights.h5")
    layer = case.layer(use_bias=False, trainable_gain="scalar")
    with pytest.raises(ValueError, match="expected 2 variables, but received 3"):
        case.model(layer).load_weights(tmp_path / "bias.weights.h5")


def test_gain_of_another_shape_is_refused_and_nothing_is_changed(tmp_path):
    case = CASES["Dense"]
    case.model(case.layer(trainable_gain="scalar")).save_weights(tmp_path / "m.weights.h5")
    layer = case.layer(trainable_gain="per_unit")
    before = layer.get_weights()
    with pytest.raises(ValueError, match=r"Expected weights of shape \(4,\) for the gain of layer"):
        case.model(layer).load_weights(tmp_path / "m.weights.h5")
    for weight, value in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_lora_is_merged_on_saving_and_computes_the_same(tmp_path):
    case = CASES["Dense"]
    layer = case.layer(gain="kernel_norm")
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(normal(*layer.lora_kernel_b.shape))
    case.model(layer).save_weights(tmp_path / "lora.weights.h5")
    merged = case.conditioned(**case.arguments, gain="kernel_norm")
    case.model(merged).load_weights(tmp_path / "lora.weights.h5")
    inputs = case.inputs()
    np.testing.assert_allclose(to_numpy(merged(*inputs)), to_numpy(layer(*inputs)), rtol=1e-5)


def test_user_subclass_survives_saving(tmp_path):
    @keras.saving.register_keras_serializable(package="tests")
    class Doubled(keras_wcond.ConditionedDense):
        def call(self, inputs, training=None):
            return 2.0 * super().call(inputs, training=training)

    layer = Doubled(4, gain="initial_norm")
    layer.build((None, 3))
    loaded = through_file(layer, CASES["Dense"], tmp_path)
    (inputs,) = CASES["Dense"].inputs()
    np.testing.assert_array_equal(to_numpy(loaded(inputs)), to_numpy(layer(inputs)))
