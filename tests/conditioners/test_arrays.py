"""Methods on NumPy arrays, by which folding and initial gains are computed on the host."""

import keras
import numpy as np
import pytest

from keras_wcond import ConditionedDense, conditioners
from keras_wcond.kernels.layout import KernelLayout
from tests.helpers import normal, relative, to_numpy

METHODS = conditioners.METHODS.values()
LAYOUTS = {
    "dense": ((6, 4), KernelLayout()),
    "groups": ((3, 3, 2, 6), KernelLayout(blocks=2)),
    "depthwise": ((3, 3, 4, 2), KernelLayout((-2, -1), matrix_axes=-2)),
}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_array_gives_the_array_that_a_tensor_gives(method, kind, dtype):
    shape, layout = LAYOUTS[kind]
    kernel = normal(*shape, dtype=dtype)
    assert method.works_on_arrays
    conditioned = method().condition_kernel(kernel, layout)
    assert isinstance(conditioned, np.ndarray)
    assert conditioned.dtype == dtype
    expected = method()(keras.ops.convert_to_tensor(kernel, "float32"), layout)
    assert relative(conditioned, to_numpy(expected)) <= 1e-5


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_a_stack_of_arrays_becomes_arrays(method):
    stack = normal(2, 3, 5)
    conditioned = method().condition_stack(stack)
    assert isinstance(conditioned, np.ndarray)
    np.testing.assert_array_equal(conditioned, method().condition(stack))


def test_a_stack_of_arrays_becomes_tensors_for_a_method_of_tensors():
    conditioned = Signs().condition_stack(normal(2, 3, 5))
    assert keras.ops.is_tensor(conditioned)
    np.testing.assert_array_equal(to_numpy(conditioned), np.sign(normal(2, 3, 5)))


class Signs(conditioners.Conditioner):
    """A user's method, which takes tensors alone."""

    def condition(self, matrices):
        assert not isinstance(matrices, np.ndarray)
        return keras.ops.sign(matrices)


class Centered(conditioners.RowEquilibration):
    """A user's method that extends one of the package's."""

    def condition(self, matrices):
        assert not isinstance(matrices, np.ndarray)
        return matrices - keras.ops.mean(matrices, axis=-1, keepdims=True)


@pytest.mark.parametrize("method", [Signs, Centered, lambda: conditioners.get([Signs(), Signs()])])
def test_a_users_method_is_given_tensors_on_the_host_too(method):
    layer = ConditionedDense(4, kernel_conditioner=method(), gain="initial_norm")
    x = normal(2, 3)
    outputs = to_numpy(layer(x))
    assert relative(layer.fold()(x), outputs) <= 1e-5
    (kernel,) = layer.kernels
    assert isinstance(kernel.folded(), np.ndarray)
