"""Training with batches that are not numbers, with rates that explode, and with delayed updates."""

import keras
import numpy as np
import pytest

from keras_wcond import ConditionedDense, condition_optimizer, conditioners
from tests.helpers import normal, to_numpy
from tests.methods_in_numpy import KEEPING_THE_SCALE

METHODS = sorted(conditioners.METHODS)
X, Y = normal(8, 6), normal(8, 3, seed=1)
NAN = np.full_like(X, np.nan)
WRAPPED = {
    "plain": lambda model: keras.optimizers.Adam(0.01),
    "updates": lambda model: condition_optimizer("adam", model, "polar_express"),
    "stored": lambda model: condition_optimizer(
        "adam", model, weight_conditioner="newton_step", every=2
    ),
}


def make_model(method="row_equilibration", **arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,))])
    model.add(ConditionedDense(5, "tanh", kernel_conditioner=method, **arguments))
    model.add(ConditionedDense(4, "tanh", kernel_conditioner=method, **arguments))
    model.add(keras.layers.Dense(3, use_bias=arguments.get("use_bias", True)))
    return model


def weights_of(model):
    return [to_numpy(weight) for weight in model.trainable_weights]


@pytest.mark.parametrize("kind", WRAPPED)
def test_loss_scaling_leaves_out_a_batch_that_is_not_a_number(kind):
    trained = []
    for batches in ([X, NAN, X, NAN, X], [X, X, X]):
        model = make_model()
        optimizer = keras.optimizers.LossScaleOptimizer(WRAPPED[kind](model), initial_scale=1024.0)
        model.compile(optimizer, "mse")
        for x in batches:
            before = weights_of(model)
            model.train_on_batch(x, Y)
            is_same = all(map(np.array_equal, before, weights_of(model)))
            assert is_same == bool(np.isnan(x[0, 0]))
        trained.append(weights_of(model))
    for found, expected in zip(*trained, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("gain", [1.0, "kernel_norm"])
def test_without_it_the_batch_is_visible_in_all_that_it_touches(kind, gain):
    model = make_model("newton_orthogonalization", gain=gain)
    model.compile(WRAPPED[kind](model), "mse")
    model.train_on_batch(X, Y)
    assert np.isnan(model.train_on_batch(NAN, Y))
    assert all(np.all(np.isnan(weight)) for weight in weights_of(model))
    assert np.all(np.isnan(to_numpy(model(X))))


@pytest.mark.parametrize("method", [name for name in METHODS if name not in KEEPING_THE_SCALE])
def test_outputs_stay_finite_at_a_rate_that_explodes(method):
    hidden = make_model(method, use_bias=False)
    hidden.layers[-1].trainable = False
    hidden.compile(keras.optimizers.SGD(1e20), "mse")
    losses = [hidden.train_on_batch(X, Y) for _ in range(4)]
    sizes = [np.abs(weight).max() for weight in weights_of(hidden)]
    assert min(sizes) > 1e10
    assert np.all(np.isfinite(sizes))
    assert np.all(np.isfinite(losses))
    # Hidden units have weights of about unit norm and a tanh, whatever the size of the kernels.
    assert max(losses) < 100.0


def test_accumulated_gradients_of_raw_kernels_make_one_step():
    halves = make_model(trainable_gain="per_unit")
    halves.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "mse")
    whole = make_model(trainable_gain="per_unit")
    whole.compile(keras.optimizers.SGD(0.1), "mse")
    for _ in range(2):
        for part in (slice(4), slice(4, 8)):
            halves.train_on_batch(X[part], Y[part])
        whole.train_on_batch(X, Y)
    for found, expected in zip(weights_of(halves), weights_of(whole), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_moving_averages_are_those_of_raw_kernels():
    model = make_model()
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.75)
    model.compile(optimizer, "mse")
    # The averages start at the weights after the first step.
    model.train_on_batch(X, Y)
    averages = weights_of(model)
    for _ in range(2):
        model.train_on_batch(X, Y)
        averages = [0.75 * a + 0.25 * w for a, w in zip(averages, weights_of(model), strict=True)]
    optimizer.finalize_variable_values(model.trainable_weights)
    for found, expected in zip(weights_of(model), averages, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    kernel = to_numpy(model.layers[0].conditioned_kernel)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1.0, rtol=1e-6)
