"""`FoldConditioning`: conditioned in the first epochs, plain afterwards."""

import keras
import numpy as np
import pytest

from keras_wcond import (
    Conditioned,
    ConditionedDense,
    FoldConditioning,
    condition_model,
    conditioned_layers,
    fold_model,
)
from keras_wcond.conditioners import PolarExpress
from tests.helpers import normal, relative, to_numpy

layers = keras.layers


def model_of_all_kinds(**kwargs):
    inputs = keras.Input((6, 4))
    x = layers.Conv1D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.LSTM(5)(x)
    outputs = layers.Dense(3)(layers.Dense(7, activation="tanh")(x))
    # One step, since it takes the time of the test to compile more of them.
    return condition_model(keras.Model(inputs, outputs), PolarExpress(steps=1), **kwargs)


def fit(model, epochs, callbacks=(), **kwargs):
    x, y = normal(8, 6, 4), normal(8, 3, seed=1)
    return model.fit(
        x,
        y,
        batch_size=8,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[*callbacks],
        **kwargs,
    ).history["loss"]


@pytest.mark.parametrize("gain", [1.0, "initial_norm", "kernel_norm"])
def test_run_equals_one_that_is_folded_by_hand_between_two_calls_of_fit(gain):
    model = model_of_all_kinds(gain=gain)
    by_hand = model_of_all_kinds(gain=gain)
    by_hand.set_weights(model.get_weights())
    for each in (model, by_hand):
        each.compile(keras.optimizers.Adam(0.01), "mse")
    losses = fit(model, 4, [FoldConditioning(after=2)])
    expected = fit(by_hand, 2)
    plain = fold_model(by_hand)
    plain.compile(keras.optimizers.Adam(0.01), "mse")
    plain.optimizer.build(plain.trainable_variables)
    for variable, value in zip(plain.optimizer.variables, by_hand.optimizer.variables, strict=True):
        variable.assign(value)
    expected += fit(plain, 2)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert conditioned_layers(model) == []
    for ours, theirs in zip(model.get_weights(), plain.get_weights(), strict=True):
        assert relative(ours, theirs) < 1e-4


def test_model_is_saved_and_loaded_as_the_plain_one_it_became(tmp_path):
    model = model_of_all_kinds()
    model.compile("sgd", "mse")
    fit(model, 2, [FoldConditioning(after=1)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert conditioned_layers(loaded) == []
    x = normal(2, 6, 4)
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(model(x)), rtol=1e-5, atol=1e-6)


def test_run_that_is_continued_later_is_folded_at_once():
    model = model_of_all_kinds()
    model.compile("sgd", "mse")
    fit(model, 5, [FoldConditioning(after=3)], initial_epoch=4)
    assert conditioned_layers(model) == []


def test_run_that_ends_before_stays_conditioned():
    model = model_of_all_kinds()
    model.compile("sgd", "mse")
    count = len(conditioned_layers(model))
    fit(model, 2, [FoldConditioning(after=2)])
    assert len(conditioned_layers(model)) == count


def test_second_call_of_fit_goes_on_with_the_plain_model():
    model = model_of_all_kinds()
    model.compile("sgd", "mse")
    callback = FoldConditioning(after=1)
    losses = fit(model, 2, [callback])
    assert fit(model, 4, [callback], initial_epoch=2)[0] < losses[-1]


def test_callback_may_fold_several_models():
    callback = FoldConditioning(after=1)
    for _ in range(2):
        model = keras.Sequential([keras.Input((6, 4)), layers.Flatten(), ConditionedDense(3)])
        model.compile("sgd", "mse")
        fit(model, 2, [callback])
        assert conditioned_layers(model) == []


def test_early_stopping_may_restore_weights_from_after_the_folding():
    model = model_of_all_kinds()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    stopping = keras.callbacks.EarlyStopping(
        "loss", patience=1, start_from_epoch=2, restore_best_weights=True
    )
    losses = fit(model, 6, [FoldConditioning(after=2), stopping])
    assert len(losses) == 4
    x, y = normal(8, 6, 4), normal(8, 3, seed=1)
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), losses[0], rtol=1e-5)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"`after` to be a positive integer. Received: after=0"):
        FoldConditioning(after=0)
    model = keras.Sequential([keras.Input((6, 4)), Conditioned(layers.LSTM(3)), layers.Dense(3)])
    trained = keras.Sequential([keras.Input((6, 4)), layers.Flatten(),
                                ConditionedDense(3, trainable_gain="scalar")])  # fmt: skip
    plain = keras.Sequential([keras.Input((6, 4)), layers.Flatten(), layers.Dense(3)])
    for each in (model, trained, plain):
        each.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"gains that are not trained.* Received: .*conditioned_d"):
        fit(trained, 1, [FoldConditioning(after=1)])
    with pytest.raises(ValueError, match=r"a model with conditioned layers. Received: model.name"):
        fit(plain, 1, [FoldConditioning(after=1)])
    # Some backends build such a model in its first step only.
    unbuilt = keras.Sequential([layers.Flatten(), ConditionedDense(3, trainable_gain="scalar")])
    unbuilt.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"gains that are not trained.* Received: .*conditioned_d"):
        fit(unbuilt, 2, [FoldConditioning(after=1)])
    callback = FoldConditioning(after=1)
    fit(model, 2, [callback])
    with pytest.raises(ValueError, match=r"a model with conditioned layers. Received: model.name"):
        fit(plain, 2, [callback])
    averaged = model_of_all_kinds()
    averaged.compile(keras.optimizers.SGD(use_ema=True), "mse")
    with pytest.raises(ValueError, match=r"without moving averages.* Received: .*use_ema=True"):
        fit(averaged, 1, [FoldConditioning(after=1)])
    if hasattr(keras.optimizers, "MultiOptimizer"):
        several = keras.optimizers.OptimizerMap(keras.optimizers.SGD(use_ema=True))
        averaged.compile(keras.optimizers.MultiOptimizer(several), "mse")
        with pytest.raises(ValueError, match=r"without moving averages.* Received: SGD with use_"):
            fit(averaged, 1, [FoldConditioning(after=1)])


def test_training_that_ends_before_the_folding_is_warned_of():
    model = condition_model(
        keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)]),
        gain="kernel_norm",
    )
    model.compile("sgd", "mse")
    fold = FoldConditioning(after=2)
    x, y = normal(8, 4), normal(8, 2, seed=1)
    with pytest.warns(
        UserWarning, match=r"still conditioned, because `fit\(\)` ended before epoch 2"
    ):
        model.fit(x, y, epochs=2, verbose=0, callbacks=[fold])
    model.fit(x, y, initial_epoch=2, epochs=3, verbose=0, callbacks=[fold])
    assert model.layers[0].kernel_conditioner is None


def test_weights_from_after_the_folding_warn_when_conditioned_layers_load_them(tmp_path):
    def network():
        plain = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
        return condition_model(plain, gain="kernel_norm")

    folded = network()
    folded.compile("sgd", "mse")
    x, y = normal(8, 4), normal(8, 2, seed=1)
    folded.fit(x, y, epochs=2, verbose=0, callbacks=[FoldConditioning(after=1)])
    path = tmp_path / "folded.weights.h5"
    folded.save_weights(path)
    with pytest.warns(UserWarning, match="saved by layers with kernel_conditioner=None"):
        network().load_weights(path)
    folded.load_weights(path)
    fold_model(folded).load_weights(path)
