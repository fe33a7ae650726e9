"""`Conditioned` around recurrent layers, embeddings, attention and layers of a user's own."""

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned, fold_model
from tests.helpers import normal, to_numpy
from tests.layers.wrapped_layers import SEQUENCES, WRAPPED, Block, every_wrapped, layers, model_of
from tests.reference import equilibrated, equilibrated_along, row_norms


@every_wrapped
def test_computes_what_the_plain_layer_computes_with_equilibrated_kernels(case):
    make, inputs, axes = case
    wrapped = Conditioned(make(), gain=1.5)
    outputs = to_numpy(wrapped(inputs))
    raw = list(wrapped.raw_kernels.values())
    if any("/" in path or path in ("kernel", "embeddings") for path in axes):
        assert list(wrapped.raw_kernels) == list(axes)
    assert len(raw) == len(axes)
    for kernel, letters in zip(raw, axes.values(), strict=True):
        kernel.assign(1.5 * equilibrated_along(to_numpy(kernel), letters))
    np.testing.assert_allclose(to_numpy(wrapped.layer(inputs)), outputs, rtol=1e-5, atol=1e-6)


@every_wrapped
def test_conditioned_kernels_have_unit_rows(case):
    make, inputs, axes = case
    wrapped = Conditioned(make())
    wrapped(inputs)
    for kernel, letters in zip(wrapped.conditioned_kernels.values(), axes.values(), strict=True):
        np.testing.assert_allclose(row_norms(to_numpy(kernel), letters), 1.0, rtol=1e-5)


@every_wrapped
def test_trains_saves_and_folds(case, tmp_path):
    trains_saves_and_folds(case, {"gain": "initial_norm", "trainable_gain": "per_unit"}, tmp_path)


@pytest.mark.parametrize(
    "gain", [{"gain": "initial_norm"}, {"trainable_gain": "per_unit"}], ids=str
)
def test_either_gain_trains_saves_and_folds(gain, tmp_path):
    trains_saves_and_folds(WRAPPED["LSTM"], gain, tmp_path)


def trains_saves_and_folds(case, gain, tmp_path):
    make, inputs, axes = case
    wrapped = Conditioned(make(), **gain)
    model = model_of(wrapped, inputs)
    assert len(wrapped.gain_weights) == len(axes)
    assert all(weight.trainable == ("trainable_gain" in gain) for weight in wrapped.gain_weights)
    before = [to_numpy(variable).copy() for variable in model.trainable_variables]
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    model.fit(inputs, np.zeros((4, model.output_shape[1])), verbose=0)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        assert np.any(to_numpy(variable) != value), variable.path
    expected = model.predict(inputs, verbose=0)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(inputs, verbose=0), expected, rtol=1e-6, atol=1e-7)

    folded = fold_model(model)
    assert type(folded.layers[1]) is type(wrapped.layer)
    assert folded.count_params() == wrapped.layer.count_params()
    np.testing.assert_allclose(folded.predict(inputs, verbose=0), expected, rtol=1e-5, atol=1e-6)


def numpy_lstm(inputs, kernel, recurrent_kernel, bias):
    """An LSTM written out, with the gates in Keras' order: input, forget, cell, output."""

    def sigmoid(x):
        return 1.0 / (1.0 + np.exp(-x))

    units = recurrent_kernel.shape[0]
    hidden = cell = np.zeros((len(inputs), units))
    for step in range(inputs.shape[1]):
        gates = inputs[:, step] @ kernel + hidden @ recurrent_kernel + bias
        i, f, c, o = (gates[:, n * units : (n + 1) * units] for n in range(4))
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(c)
        hidden = sigmoid(o) * np.tanh(cell)
    return hidden


@pytest.mark.parametrize("use_cudnn", ["auto", False])
def test_lstm_equals_numpy(use_cudnn):
    wrapped = Conditioned(layers.LSTM(5, use_cudnn=use_cudnn), gain=2.0)
    inputs = normal(3, 20, 4)
    outputs = to_numpy(wrapped(inputs))
    kernel, recurrent, bias = (to_numpy(w).astype("float64") for w in wrapped.layer.weights)
    expected = numpy_lstm(inputs, 2.0 * equilibrated(kernel), 2.0 * equilibrated(recurrent), bias)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [lambda: layers.LSTM(8, dropout=0.5), lambda: layers.LSTM(8, recurrent_dropout=0.5), Block],
)
def test_dropout_draws_a_new_mask_at_every_call(layer):
    wrapped = Conditioned(layer())
    first, second = (to_numpy(wrapped(SEQUENCES, training=True)) for _ in range(2))
    assert np.any(first != second)
    first, second = (to_numpy(wrapped(SEQUENCES, training=False)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_batch_normalization_updates_its_moving_mean():
    wrapped = Conditioned(Block())
    model = model_of(wrapped, SEQUENCES)
    mean = wrapped.layer.norm.moving_mean
    values = [to_numpy(mean).copy()]
    wrapped(SEQUENCES, training=True)
    values.append(to_numpy(mean).copy())
    model.compile("sgd", "mse")
    model.fit(SEQUENCES, np.zeros((4, 28)), verbose=0)
    values.append(to_numpy(mean).copy())
    assert np.any(values[0] != values[1])
    assert np.any(values[1] != values[2])
    wrapped(SEQUENCES, training=False)
    np.testing.assert_array_equal(to_numpy(mean), values[2])


class AddsLoss(layers.Dense):
    def call(self, inputs, training=None):
        self.add_loss(100.0 * keras.ops.ones(()))
        return super().call(inputs)


@pytest.mark.parametrize(
    "layer",
    [lambda: AddsLoss(4), lambda: layers.LSTM(4, activity_regularizer=keras.regularizers.L2(50.0))],
)
def test_losses_of_the_wrapped_layer_are_part_of_the_loss(layer):
    wrapped = Conditioned(layer())
    model = model_of(wrapped, SEQUENCES)
    model.compile("sgd", "mse")
    targets = np.zeros((4, model.output_shape[1]))
    data_loss = np.mean(np.square(model.predict(SEQUENCES, verbose=0)))
    wrapped(SEQUENCES)
    added = float(to_numpy(wrapped.losses[0]))
    assert added > 0.1
    assert len(wrapped.losses) == 1
    loss = model.evaluate(SEQUENCES, targets, verbose=0)
    np.testing.assert_allclose(loss, data_loss + added, rtol=1e-4)
    history = model.fit(SEQUENCES, targets, epochs=2, verbose=0).history["loss"]
    np.testing.assert_allclose(history[0], data_loss + added, rtol=1e-4)


def test_frozen_wrapper_folds_into_a_frozen_layer():
    wrapped = Conditioned(layers.LSTM(4), trainable=False)
    model = model_of(wrapped, SEQUENCES)
    assert not wrapped.fold().trainable
    assert not fold_model(model).layers[1].trainable


def test_without_conditioner_it_is_the_wrapped_layer():
    layer = layers.BatchNormalization()
    wrapped = Conditioned(layer, kernel_conditioner=None)
    np.testing.assert_array_equal(to_numpy(wrapped(SEQUENCES)), to_numpy(layer(SEQUENCES)))


def test_lora_inside_is_conditioned_as_a_merged_kernel():
    layer = layers.Dense(4)
    wrapped = Conditioned(layer)
    wrapped(SEQUENCES)
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(normal(2, 4))
    kernel = wrapped.conditioned_kernels["kernel"]
    np.testing.assert_allclose(to_numpy(kernel), equilibrated(to_numpy(layer.kernel)), rtol=1e-5)
    expected = SEQUENCES @ to_numpy(kernel)
    np.testing.assert_allclose(to_numpy(wrapped(SEQUENCES)), expected, rtol=1e-4, atol=1e-5)


def test_quantizing_inside_folds_first(tmp_path):
    """As quantizing the folded layer does, and in files as well."""
    x = normal(4, 7, 3)
    inner = keras.Sequential([layers.Dense(4, activation="tanh"), layers.Dense(3)])
    model = model_of(Conditioned(inner, trainable_gain="per_unit", gain="initial_norm"), x)
    folded = fold_model(model)
    for each in (folded, model):
        with pytest.warns(UserWarning, match="does not have a `quantize` method"):
            each.quantize("int8")
    wrapped = model.layers[1]
    assert folded.layers[1].layers[0].quantization_mode == "int8"
    assert wrapped.layer.layers[0].quantization_mode == "int8"
    assert wrapped.kernel_conditioner is None
    assert not wrapped.gain_weights
    np.testing.assert_allclose(to_numpy(model(x)), to_numpy(folded(x)), atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(folded(x)), atol=1e-6)


def test_quantizing_inside_that_fails_leaves_the_kernel():
    layer = Conditioned(layers.Dense(4))
    x = normal(2, 3)
    before = to_numpy(layer(x))
    with pytest.raises(ValueError, match="Invalid quantization mode"):
        layer.layer.quantize("int3")
    assert layer.kernel_conditioner is not None
    np.testing.assert_array_equal(to_numpy(layer(x)), before)
