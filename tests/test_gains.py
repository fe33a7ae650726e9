import keras
import numpy as np
import pytest
from scipy import integrate, stats

from keras_wcond import (
    Conditioned,
    ConditionedConv2D,
    ConditionedDense,
    ConditionedInitializer,
    WeightConditioning,
)
from keras_wcond.conditioners import RowEquilibration
from keras_wcond.gains import activation_gain
from keras_wcond.kernels.layout import KernelLayout
from keras_wcond.reparametrization import Reparametrization
from tests.helpers import kernel_gradient, normal, to_numpy
from tests.reference import central_differences, equilibrated


def gaussian(z):
    return keras.ops.exp(-0.5 * (z / 0.1) ** 2)


def sine(z):
    return keras.ops.sin(30.0 * z)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("linear", 1.0),
        ("relu", np.sqrt(2.0)),
        ("silu", 1.6765),
        ("gelu", 1.5335),
        ("tanh", 1.5925),
        (gaussian, 3.765),
        (sine, np.sqrt(2.0)),
    ],
)
def test_gain_of_an_activation(activation, expected):
    gain = activation_gain(keras.activations.get(activation))
    np.testing.assert_allclose(gain, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["elu", "selu", "softplus", "sigmoid", "leaky_relu", "mish"])
def test_gain_agrees_with_adaptive_quadrature(name):
    activation = keras.activations.get(name)

    def integrand(z):
        value = to_numpy(activation(keras.ops.convert_to_tensor(np.float32([z]))))[0]
        return float(value) ** 2 * stats.norm.pdf(z)

    moment, _ = integrate.quad(integrand, -9, 9, points=[0.0], epsabs=1e-6, epsrel=1e-6)
    np.testing.assert_allclose(activation_gain(activation), 1 / np.sqrt(moment), rtol=1e-4)


def test_auto_gain_is_that_of_the_layers_activation():
    layer = ConditionedDense(4, activation="relu", gain="auto")
    layer.build((None, 3))
    norms = np.linalg.norm(to_numpy(layer.conditioned_kernel), axis=0)
    np.testing.assert_allclose(norms, np.sqrt(2.0), rtol=1e-4)
    assert layer.get_config()["gain"] == "auto"
    assert len(layer.weights) == 2


@pytest.mark.parametrize(
    "conditioner",
    [
        "column_equilibration",
        "newton_orthogonalization",
        "polynomial_preconditioner",
        "spectral_normalization",
        ["polynomial_preconditioner", "spectral_normalization"],
    ],
)
@pytest.mark.parametrize("units", [3, 20])
def test_auto_gain_means_the_same_for_every_method(conditioner, units):
    layer = ConditionedDense(units, activation="relu", gain="auto", kernel_conditioner=conditioner)
    layer.build((None, 8))
    mean_square = np.mean(np.sum(to_numpy(layer.conditioned_kernel) ** 2, axis=0))
    np.testing.assert_allclose(mean_square, 2.0, rtol=1e-4)
    # A number multiplies what the method makes.
    layer = ConditionedDense(units, gain=3.0, kernel_conditioner=conditioner)
    layer.build((None, 8))
    expected = 3.0 * to_numpy(layer.kernel_conditioner(layer.kernel))
    np.testing.assert_allclose(to_numpy(layer.conditioned_kernel), expected, rtol=1e-5)


def test_auto_gain_of_a_wrapper_means_the_same():
    layer = Conditioned(
        keras.layers.Dense(20, activation="relu"), "newton_orthogonalization", gain="auto"
    )
    layer.build((None, 8))
    mean_square = np.mean(np.sum(to_numpy(layer.conditioned_kernels["kernel"]) ** 2, axis=0))
    np.testing.assert_allclose(mean_square, 2.0, rtol=1e-4)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_auto_gain_needs_an_elementwise_activation(name):
    with pytest.raises(
        ValueError, match=rf"Received: activation={name}.*Pass a number as the gain"
    ):
        ConditionedDense(4, activation=name, gain="auto")
    plain = ConditionedDense(4, activation=name, gain="auto", kernel_conditioner=None)
    assert plain(normal(2, 3)).shape == (2, 4)


def test_auto_gain_needs_a_finite_moment():
    with pytest.raises(ValueError, match=r"finite, positive second moment .*=0.0. Pass a number"):
        activation_gain(keras.ops.zeros_like)


def test_number_scales_the_conditioned_kernel():
    layer = ConditionedConv2D(4, 3, gain=2.5)
    layer.build((None, 8, 8, 2))
    expected = 2.5 * equilibrated(to_numpy(layer.kernel))
    np.testing.assert_allclose(to_numpy(layer.conditioned_kernel), expected, rtol=1e-5)


def test_initial_norm_keeps_the_norm_the_kernel_was_initialized_with():
    layer = ConditionedDense(4, gain="initial_norm", kernel_initializer="he_normal")
    layer.build((None, 3))
    initial = np.linalg.norm(to_numpy(layer.kernel))
    np.testing.assert_allclose(
        np.linalg.norm(to_numpy(layer.conditioned_kernel)), initial, rtol=1e-5
    )
    layer.kernel.assign(5.0 * layer.kernel)
    np.testing.assert_allclose(
        np.linalg.norm(to_numpy(layer.conditioned_kernel)), initial, rtol=1e-5
    )
    assert [w.name for w in layer.non_trainable_weights] == ["gain"]


def test_kernel_norm_follows_the_raw_kernel():
    layer = ConditionedDense(4, gain="kernel_norm")
    layer.build((None, 3))
    for _ in range(2):
        raw, conditioned = to_numpy(layer.kernel), to_numpy(layer.conditioned_kernel)
        np.testing.assert_allclose(np.linalg.norm(conditioned), np.linalg.norm(raw), rtol=1e-5)
        layer.kernel.assign(5.0 * layer.kernel)
    assert len(layer.weights) == 2


def test_gradient_passes_through_kernel_norm():
    layer = ConditionedDense(4, gain="kernel_norm", use_bias=False)
    layer.build((None, 3))
    inputs, upstream = normal(5, 3), normal(5, 4, seed=1)

    def loss(kernel):
        gain = np.linalg.norm(kernel) / np.sqrt(kernel.shape[1])
        return np.sum((inputs @ (gain * equilibrated(kernel))) * upstream)

    expected = central_differences(loss, to_numpy(layer.kernel))
    result = kernel_gradient(layer, inputs, upstream)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4)


def test_zero_kernel_stays_zero_with_every_gain():
    for gain in (1.0, "auto", "initial_norm", "kernel_norm"):
        layer = ConditionedDense(4, gain=gain, kernel_initializer="zeros", use_bias=False)
        layer.build((None, 3))
        assert np.all(to_numpy(layer.conditioned_kernel) == 0.0)
        gradient = kernel_gradient(layer, normal(5, 3), normal(5, 4, seed=1))
        np.testing.assert_array_equal(gradient, np.zeros((3, 4)))


@pytest.mark.parametrize(("trainable_gain", "shape"), [("scalar", ()), ("per_unit", (4,))])
@pytest.mark.parametrize(
    ("gain", "start"), [(2.0, 2.0), ("auto", np.sqrt(2)), ("kernel_norm", 1.0)]
)
def test_trainable_gain_is_a_weight_that_starts_at_the_gain(trainable_gain, shape, gain, start):
    layer = ConditionedDense(4, activation="relu", gain=gain, trainable_gain=trainable_gain)
    layer.build((None, 3))
    assert [w.name for w in layer.trainable_weights] == ["kernel", "bias", "gain"]
    weight = to_numpy(layer.gain_weight)
    assert weight.shape == shape
    np.testing.assert_allclose(weight, start, rtol=1e-4)
    before = to_numpy(layer.conditioned_kernel)
    factors = np.arange(1.0, 1.0 + max(1, len(shape) and 4)).reshape(shape)
    layer.gain_weight.assign(weight * factors)
    np.testing.assert_allclose(to_numpy(layer.conditioned_kernel), before * factors, rtol=1e-5)


def test_initial_norm_can_be_trained_from():
    layer = ConditionedDense(4, gain="initial_norm", trainable_gain="scalar")
    layer.build((None, 3))
    assert layer.gain_weight.trainable
    raw, conditioned = to_numpy(layer.kernel), to_numpy(layer.conditioned_kernel)
    np.testing.assert_allclose(np.linalg.norm(conditioned), np.linalg.norm(raw), rtol=1e-5)


@pytest.mark.parametrize("gain", [0.0, -1.0, np.inf, np.nan, "large", ""])
def test_gain_that_is_neither_positive_nor_a_word_is_refused(gain):
    message = r"positive number or one of 'auto', 'initial_norm', 'kernel_norm'. Received: gain="
    with pytest.raises(ValueError, match=message):
        ConditionedDense(4, gain=gain)


@pytest.mark.parametrize("gain", [None, True, [1.0], 1j])
def test_gain_of_a_wrong_type_is_refused(gain):
    with pytest.raises(TypeError, match=r"positive number or one of .* Received: gain="):
        ConditionedDense(4, gain=gain)


@pytest.mark.parametrize("owner", [WeightConditioning, ConditionedInitializer])
@pytest.mark.parametrize("gain", ["auto", "initial_norm"])
def test_gains_that_need_a_layer_are_refused_without_one(owner, gain):
    with pytest.raises(ValueError, match=r"positive number or 'kernel_norm'. Received"):
        owner(gain=gain)


@pytest.mark.parametrize("trainable_gain", [True, "vector", 1])
def test_unknown_trainable_gain_is_refused(trainable_gain):
    with pytest.raises(
        ValueError, match=r"None, 'scalar' or 'per_unit'. Received: trainable_gain="
    ):
        ConditionedDense(4, trainable_gain=trainable_gain)


@pytest.mark.parametrize("arguments", [{"gain": "initial_norm"}, {"trainable_gain": "scalar"}])
def test_gain_that_is_a_weight_cannot_be_left_out(arguments):
    reparametrization = Reparametrization(RowEquilibration(), **arguments)
    with pytest.raises(ValueError, match=r"Expected the weight of the gain.* gain_weight=None for"):
        reparametrization.apply(normal(3, 4), KernelLayout())
