"""PyTorch modules inside `Conditioned`."""

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned
from tests.helpers import normal, to_numpy
from tests.layers.wrapped_layers import layers
from tests.reference import equilibrated


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch has its modules")
class TestTorchModules:
    """A PyTorch module reads its own parameters, not the Keras variables around them."""

    def layer(self, **arguments):
        import torch

        module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4))
        inner = layers.TorchModuleWrapper(module)
        weights = {inner.weights[0].name: 0, inner.weights[2].name: 0}
        return Conditioned(inner, weights=weights, **arguments)

    def test_outputs_and_gradients(self):
        layer = self.layer(gain=2.0)
        x = normal(6, 3)
        outputs = layer(x)
        first, first_bias, second, second_bias = (
            to_numpy(w).astype("float64") for w in layer.layer.weights
        )
        hidden = np.tanh(x @ (2.0 * equilibrated(first, 0)).T + first_bias)
        expected = hidden @ (2.0 * equilibrated(second, 0)).T + second_bias
        np.testing.assert_allclose(to_numpy(outputs), expected, atol=1e-5)
        keras.ops.sum(keras.ops.square(outputs)).backward()
        gradient = to_numpy(layer.layer.weights[0].value.grad)
        assert np.max(np.abs(np.sum(gradient * first, axis=1))) <= 1e-4 * np.max(np.abs(gradient))

    def test_parameters_are_themselves_afterwards(self):
        layer = self.layer()
        module = layer.layer.module
        before = dict(module.named_parameters())
        layer(normal(2, 3))
        after = dict(module.named_parameters())
        assert list(after) == list(before)
        assert all(after[name] is before[name] for name in before)

    def test_fold_training_and_rematerialization(self):
        x, folded = normal(8, 3), []
        for mode in (None, "full"):
            with keras.RematScope(mode=mode):
                layer = self.layer(gain="kernel_norm")
            model = keras.Sequential([keras.Input((3,)), layer])
            for i, weight in enumerate(layer.layer.weights):
                weight.assign(normal(*weight.shape, seed=i))
            model.compile(keras.optimizers.SGD(0.05), "mse")
            model.fit(x, np.ones((8, 4)), epochs=3, verbose=0, shuffle=False)
            plain = layer.fold()
            np.testing.assert_allclose(to_numpy(plain(x)), to_numpy(model(x)), atol=1e-5)
            folded.append(to_numpy(plain(x)))
        np.testing.assert_allclose(*folded, atol=1e-5)
