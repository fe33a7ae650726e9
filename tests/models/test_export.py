"""Conditioned and folded models leave Keras, and run in the runtimes they leave for."""

import importlib.util

import keras
import numpy as np
import pytest

from keras_wcond import condition_model, fold_model
from tests.backends import normal

layers = keras.layers
BACKEND = keras.backend.backend()
INPUTS = normal(2, 10, 10, 3)


def needs(*packages, backends):
    """Skips where a backend has no such export, or a package for it is not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if BACKEND not in backends:
        return pytest.mark.skip(reason=f"Keras has no such export from {BACKEND}")
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def model(recurrent):
    """Convolutions, attention and, since LiteRT's own operations lack it, perhaps an LSTM."""
    inputs = keras.Input((10, 10, 3))
    x = layers.Conv2D(6, 3, activation="relu")(inputs)
    x = layers.SeparableConv2D(8, 3)(x)
    x = layers.Reshape((36, 8))(x)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.LSTM(6)(x) if recurrent else layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def conditioned(recurrent=True):
    built = condition_model(model(recurrent), trainable_gain="per_unit")
    built.predict(INPUTS, verbose=0)  # Keras exports to ONNX what was called before.
    return built


def folded(recurrent=True):
    return fold_model(condition_model(model(recurrent), trainable_gain="per_unit"))


either = pytest.mark.parametrize("make", [conditioned, folded])


def require_same(outputs, exported):
    expected = exported.predict(INPUTS, verbose=0)
    error = np.max(np.abs(np.asarray(outputs) - expected))
    assert error <= 1e-4 * np.max(np.abs(expected))


@needs("tensorflow", backends=("tensorflow", "jax"))
@either
def test_saved_model(make, tmp_path):
    import tensorflow as tf

    exported = make()
    exported.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    require_same(loaded.serve(INPUTS), exported)


ONNX_CONVERTERS = {"tensorflow": "tf2onnx", "torch": "onnxscript"}


@needs(
    "onnx", "onnxruntime", ONNX_CONVERTERS.get(BACKEND, "onnx"), backends=("tensorflow", "torch")
)
# PyTorch's tracer warns wherever the shape of a tensor is looked at.
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python")
@either
def test_onnx(make, tmp_path):
    import onnxruntime

    exported = make()
    path = str(tmp_path / "model.onnx")
    exported.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path)
    (name,) = (node.name for node in session.get_inputs())
    require_same(session.run(None, {name: INPUTS})[0], exported)


@needs("ai_edge_litert", backends=("tensorflow",))
@either
def test_litert(make, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    exported = make(recurrent=False)
    path = str(tmp_path / "model.tflite")
    exported.export(path, format="litert", verbose=False)
    interpreter = Interpreter(path)
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], INPUTS.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], INPUTS)
    interpreter.invoke()
    require_same(interpreter.get_tensor(made["index"]), exported)
