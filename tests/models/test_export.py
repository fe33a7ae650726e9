"""Conditioned and folded models leave Keras, and run in the runtimes they leave for."""

import importlib.util

import keras
import numpy as np
import pytest

from keras_wcond import condition_model, fold_model
from tests.helpers import normal, relative

layers = keras.layers
BACKEND = keras.backend.backend()
# The batch size of an exported model is open.
BATCHES = normal(2, 10, 10, 3), normal(5, 10, 10, 3, seed=1)


def needs(*packages, backends):
    """Skips where a backend has no such export, or a package for it is not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if BACKEND not in backends:
        return pytest.mark.skip(reason=f"Keras has no such export from {BACKEND}")
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def model(recurrent):
    """Convolutions, attention and, since LiteRT's own operations lack it, perhaps an LSTM.

    The first Dense layer is of a size at which the product is scaled, and not the kernel.
    """
    inputs = keras.Input((10, 10, 3))
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    x = layers.Reshape((64, 8))(x)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.LSTM(64)(x) if recurrent else layers.Conv1D(64, 64)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(512, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def conditioned(recurrent=True):
    built = condition_model(model(recurrent), trainable_gain="scalar")
    built.predict(BATCHES[0], verbose=0)  # Keras exports to ONNX what was called before.
    return built


def folded(recurrent=True):
    return fold_model(condition_model(model(recurrent), trainable_gain="scalar"))


either = pytest.mark.parametrize("make", [conditioned, folded])


def require_same(run, exported):
    for inputs in BATCHES:
        outputs = np.asarray(run(inputs))
        assert relative(outputs, exported.predict(inputs, verbose=0)) <= 1e-4


@needs("tensorflow", backends=("tensorflow", "jax"))
@either
def test_saved_model(make, tmp_path):
    import tensorflow as tf

    exported = make()
    exported.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    require_same(loaded.serve, exported)


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
    require_same(lambda inputs: session.run(None, {name: inputs})[0], exported)


@needs("ai_edge_litert", backends=("tensorflow",))
@either
def test_litert(make, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    exported = make(recurrent=False)
    path = str(tmp_path / "model.tflite")
    exported.export(path, format="litert", verbose=False)
    interpreter = Interpreter(path)
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(inputs):
        interpreter.resize_tensor_input(given["index"], inputs.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], inputs)
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])

    require_same(run, exported)


@needs(backends=("torch",))
@either
@pytest.mark.skipif(
    keras.__version__.startswith("3.12."),
    reason="under `torch.export`, Keras 3.12 fixes the batch size of plain layers too",
)
def test_torch_export(make):
    import torch

    exported = make()
    sizes = {0: torch.export.Dim("batch", min=2, max=64)}
    program = torch.export.export(
        exported, (torch.as_tensor(BATCHES[0]),), dynamic_shapes=((sizes,),), strict=False
    ).module()
    require_same(lambda inputs: program(torch.as_tensor(inputs)).detach(), exported)
