"""`fit` under every policy, eagerly and compiled, in every kind of model."""

import shutil

import keras
import numpy as np
import pytest

from keras_wcond import ConditionedConv2D, ConditionedDense
from tests.helpers import normal, to_numpy
from tests.layers.cases import every_layer

layers = keras.layers
POLICIES = ["float32", "mixed_float16", "mixed_bfloat16"]
SHAPE = (6, 6, 2)


def hidden():
    return [
        ConditionedConv2D(4, 3, activation="relu", gain="auto"),
        layers.Flatten(),
        ConditionedDense(8, activation="tanh", gain="kernel_norm", trainable_gain="scalar"),
    ]


def sequential():
    return keras.Sequential([keras.Input(SHAPE), *hidden(), layers.Dense(3, dtype="float32")])


def functional():
    outputs = inputs = keras.Input(SHAPE)
    for layer in [*hidden(), layers.Dense(3, dtype="float32")]:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = hidden()
        self.dropout = layers.Dropout(0.1)
        self.head = layers.Dense(3, dtype="float32")

    def call(self, inputs, training=None):
        for layer in self.hidden:
            inputs = layer(inputs)
        return self.head(self.dropout(inputs, training=training))


def time_distributed():
    frames = keras.Input((4, *SHAPE))
    outputs = frames
    for layer in hidden():
        outputs = layers.TimeDistributed(layer)(outputs)
    outputs = layers.Dense(3, dtype="float32")(layers.GlobalAveragePooling1D()(outputs))
    return keras.Model(frames, outputs)


def shared():
    left, right = keras.Input(SHAPE), keras.Input(SHAPE)
    stack = keras.Sequential(hidden())
    outputs = layers.Dense(3, dtype="float32")(layers.concatenate([stack(left), stack(right)]))
    return keras.Model([left, right], outputs)


def fit(model, steps=4, **compile_arguments):
    """Trains, and returns the losses; the conditioned layers must have learned something."""
    shapes = model.input_shape if hasattr(model, "input_shape") else (None, *SHAPE)
    shapes = shapes if isinstance(shapes, list) else [shapes]
    inputs = [normal(16, *shape[1:], seed=i) for i, shape in enumerate(shapes)]
    inputs = inputs if len(inputs) > 1 else inputs[0]
    model(inputs if isinstance(inputs, list) else inputs[:1])
    before = {weight.path: to_numpy(weight).copy() for weight in model.trainable_weights}
    model.compile(keras.optimizers.Adam(1e-2), "mse", **compile_arguments)
    targets = normal(16, 3, seed=9)
    losses = model.fit(inputs, targets, batch_size=8, epochs=steps, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0]
    for weight in model.trainable_weights:
        assert np.any(to_numpy(weight) != before[weight.path]), weight.path
    return losses


@pytest.mark.parametrize(
    ("build", "policy"),
    [
        *((sequential, policy) for policy in POLICIES),
        *((build, "mixed_float16") for build in (functional, Subclassed, time_distributed, shared)),
    ],
)
def test_fit_in_every_kind_of_model(build, policy):
    keras.config.set_dtype_policy(policy)
    fit(build())


@every_layer
def test_every_layer_trains_in_mixed_precision(case):
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = case.conditioned(**case.arguments, gain="initial_norm")
    model, inputs = case.model(layer), case.inputs(batch=8)
    before = {path: to_numpy(kernel).copy() for path, kernel in layer.raw_kernels.items()}
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    targets = normal(*model(inputs).shape, seed=9)
    losses = model.fit(inputs, targets, batch_size=4, epochs=4, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0]
    for path, kernel in layer.raw_kernels.items():
        assert np.any(to_numpy(kernel) != before[path]), path
    assert len(before) == len(case.axes)


@pytest.mark.parametrize("policy", POLICIES)
def test_fit_eagerly(policy):
    keras.config.set_dtype_policy(policy)
    fit(sequential(), run_eagerly=True)


@pytest.mark.skipif(
    keras.backend.backend() == "torch" and shutil.which("g++") is None,
    reason="torch.compile needs a C++ compiler, and there is no g++",
)
# Each takes PyTorch most of a minute; the other backends compile in the tests above already.
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_fit_compiled(policy):
    keras.config.set_dtype_policy(policy)
    model = sequential()
    fit(model, steps=2, jit_compile=True)
    assert model.jit_compile


def test_compiled_and_eager_training_agree():
    """The same losses, step by step, from the same weights."""
    model = sequential()
    weights = model.get_weights()
    losses = []
    for eager in (True, False):
        model.set_weights(weights)
        keras.utils.set_random_seed(0)
        losses.append(fit(model, run_eagerly=eager))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_rows_stay_unit_while_the_raw_kernel_moves():
    model = sequential()
    convolution = model.layers[0]
    for _ in range(2):
        fit(model)
        kernel = to_numpy(convolution.conditioned_kernel)
        norms = np.linalg.norm(kernel.reshape(-1, 4), axis=0)
        np.testing.assert_allclose(norms, np.sqrt(2.0), rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("policy", POLICIES)
def test_fit_on_a_gpu(policy):
    keras.config.set_dtype_policy(policy)
    fit(sequential())
