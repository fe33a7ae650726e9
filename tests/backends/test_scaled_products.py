"""Products that are scaled in place of the kernel: the same numbers as with the kernel formed."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_wcond import ConditionedDense, backends
from keras_wcond.conditioners import (
    ColumnEquilibration,
    FrobeniusNormalization,
    RowEquilibration,
)
from keras_wcond.layers import dense
from keras_wcond.layers.dense import is_cheaper_than_kernel
from keras_wcond.linalg.norms import SQUARES_WITHIN_RANGE
from tests.helpers import gradient, kernel_gradient, normal, relative, to_numpy
from tests.reference import equilibrated, equilibrated_gradient

pytestmark = pytest.mark.usefixtures("each_arithmetic")


ROWS, INPUTS, UNITS = 8, 256, 130


IS_JAX = keras.backend.backend() == "jax"


METHODS = [RowEquilibration, ColumnEquilibration, FrobeniusNormalization]


@pytest.fixture
def formed(monkeypatch):
    """A function that has a layer form its conditioned kernel, whatever its size."""

    def formed(function):
        with monkeypatch.context() as patch:
            patch.setattr(dense, "is_cheaper_than_kernel", lambda *shapes: False)
            return function()

    return formed


@pytest.fixture(autouse=True)
def _count_products(monkeypatch, request):
    """Every test here is to go through the scaled product."""
    calls = []
    for method in METHODS:

        def counted(*args, product=method.product):
            calls.append(args)
            return product(*args)

        monkeypatch.setattr(method, "product", counted)
    yield
    if "formed" in request.fixturenames:
        assert calls


ARGUMENTS = [
    {},
    {"gain": 2.5, "activation": "leaky_relu"},
    {"gain": "auto", "activation": "relu"},
    {"gain": "initial_norm", "use_bias": False},
    {"trainable_gain": "scalar"},
    {"trainable_gain": "per_unit", "gain": 0.5},
    {"kernel_conditioner": "column_equilibration", "gain": 2.5},
    {"kernel_conditioner": "column_equilibration", "trainable_gain": "per_unit"},
    {"kernel_conditioner": "frobenius_normalization"},
    {"kernel_conditioner": "frobenius_normalization", "trainable_gain": "per_unit"},
]


# Of twice 150 rows, the product is larger than the kernel.
SIZES = [(INPUTS,), (150, INPUTS)]


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [*itertools.product(ARGUMENTS, SIZES), ({}, (2, 2, INPUTS)), (ARGUMENTS[1], (3, INPUTS))],
    ids=str,
)
def test_both_forms_agree_with_their_gradients(formed, arguments, shape):
    layer = ConditionedDense(UNITS, bias_initializer="normal", **arguments)
    layer.build((None, *shape))
    for gain in layer.gain_weights:
        gain.assign(gain + 0.1 * normal(*gain.shape, seed=3))
    inputs, upstream = normal(2, *shape), normal(2, *shape[:-1], UNITS, seed=1)
    assert relative(layer(inputs), formed(lambda: layer(inputs))) <= 1e-6

    def loss(x):
        return keras.ops.sum(keras.ops.multiply(layer(x), upstream))

    assert relative(gradient(loss, inputs), formed(lambda: gradient(loss, inputs))) <= 1e-5
    assert len(layer.trainable_variables) >= 1
    for weight in layer.trainable_variables:
        found = kernel_gradient(layer, inputs, upstream, weight)
        expected = formed(lambda w=weight: kernel_gradient(layer, inputs, upstream, w))
        assert relative(found, expected) <= 1e-5, weight.name


def test_both_forms_agree_with_low_rank_adapters(formed):
    layer = ConditionedDense(UNITS)
    layer.build((None, INPUTS))
    layer.enable_lora(4)
    layer.lora_kernel_b.assign(normal(4, UNITS))
    inputs, upstream = normal(ROWS, INPUTS), normal(ROWS, UNITS, seed=1)
    assert relative(layer(inputs), formed(lambda: layer(inputs))) <= 1e-6
    for weight in (layer.lora_kernel_a, layer.lora_kernel_b):
        found = kernel_gradient(layer, inputs, upstream, weight)
        expected = formed(lambda w=weight: kernel_gradient(layer, inputs, upstream, w))
        assert relative(found, expected) <= 1e-5


def product(kernel, inputs=None, gain=1.0, one_norm=False):
    inputs = normal(ROWS, kernel.shape[0]) if inputs is None else inputs
    tensors = (keras.ops.convert_to_tensor(x) for x in (inputs, kernel, np.float32(gain)))
    return backends.equilibrated_product(*tensors, one_norm=one_norm)


@pytest.mark.parametrize("form", ["expanded", "transposed"])
def test_gradients_do_not_depend_on_how_the_upstream_gradient_lies_in_memory(form):
    kernel, inputs, bias = normal(16, 6), normal(6, 16, seed=1), normal(6, seed=2)

    def loss(values, multiply):
        x = keras.ops.convert_to_tensor(inputs)
        outputs = backends.equilibrated_product(x, values[0], values[1], values[2])
        if form == "transposed":
            outputs = keras.ops.transpose(outputs)
        return keras.ops.sum(multiply(outputs))

    values = [keras.ops.convert_to_tensor(x) for x in (kernel, np.float32(1.5), bias)]
    ones = keras.ops.convert_to_tensor(np.ones((6, 6), "float32"))
    found = backends.gradient(lambda v: loss(v, lambda y: y))(values)
    expected = backends.gradient(lambda v: loss(v, lambda y: keras.ops.multiply(y, ones)))(values)
    for one, other in zip(found, expected, strict=True):
        assert relative(one, other) <= 1e-6


def product_gradient(kernel, upstream, inputs, one_norm=False):
    def loss(w):
        return keras.ops.sum(keras.ops.multiply(product(w, inputs, 1.0, one_norm), upstream))

    return gradient(loss, kernel)


# On PyTorch, the last one is beyond what is taken to fit into a cache.
SHAPES = [(1, 1), (1, 5), (5, 1), (64, 3), (65, 3), (3, 64), (96, 96), (1024, 3), (640, 480)]


@pytest.mark.parametrize(
    ("rows", "shape"), [*((ROWS, shape) for shape in SHAPES), (640, (640, 480))]
)
def test_agrees_with_numpy(rows, shape):
    kernel, inputs = normal(*shape), normal(rows, shape[0], seed=1)
    upstream = normal(rows, shape[1], seed=2)
    assert relative(product(kernel, inputs, 2.0), 2.0 * inputs @ equilibrated(kernel)) <= 1e-5
    found = product_gradient(kernel, upstream, inputs).astype("float64")
    expected = equilibrated_gradient(kernel, inputs.T.astype("float64") @ upstream)
    # What is left of a row of one entry is the rounding of its gradient before projection.
    scale = np.max(np.abs(inputs.T @ upstream) / np.linalg.norm(kernel, axis=0))
    assert np.max(np.abs(found - expected)) <= 1e-5 * scale


# Less than the inputs' number, and as many: PyTorch's gradient takes another way then.
each_size = pytest.mark.parametrize("rows", [4, 8])


@each_size
@given(exponents=st.lists(st.floats(-30.0, 30.0), min_size=3, max_size=3))
def test_scale_of_a_unit_does_not_matter(rows, exponents):
    """Whether squares of the kernel are within range or not."""
    kernel, scales = (
        np.random.default_rng(0).uniform(0.5, 1.0, size=(8, 3)),
        10.0 ** np.array(exponents),
    )
    inputs, upstream = normal(rows, 8, seed=1), normal(rows, 3, seed=2)
    scaled = (kernel * scales).astype("float32")
    assert relative(product(scaled, inputs), inputs @ equilibrated(kernel)) <= 1e-5
    found = product_gradient(scaled, upstream, inputs).astype("float64") * scales
    expected = equilibrated_gradient(kernel, inputs.T.astype("float64") @ upstream)
    assert relative(found, expected) <= 1e-4


@each_size
@pytest.mark.parametrize("exponent", [-30.0, -15.0, 0.0, 15.0, 30.0])
def test_scale_of_the_kernel_does_not_matter_by_one_norm(exponent, rows):
    kernel = normal(8, 3) * np.array([1.0, 0.5, 1e-8])
    scaled = (kernel * 10.0**exponent).astype("float32")
    inputs, upstream = normal(rows, 8, seed=1), normal(rows, 3, seed=2)
    norm = np.linalg.norm(kernel)
    assert relative(product(scaled, inputs, 1.0, True), inputs @ kernel / norm) <= 1e-5
    found = product_gradient(scaled, upstream, inputs, True).astype("float64") * 10.0**exponent
    pulled = inputs.T.astype("float64") @ upstream
    expected = (pulled - kernel * np.sum(kernel * pulled) / norm**2) / norm
    assert relative(found, expected) <= 1e-4


@each_size
@pytest.mark.parametrize("size", [1.0, 1e-20])
def test_zero_columns_have_zero_gradients_by_one_norm(size, rows):
    kernel = (size * normal(8, 3)).astype("float32")
    kernel[:, 1] = 0.0
    inputs, upstream = normal(rows, 8, seed=1), normal(rows, 3, seed=2)
    expected = inputs @ (kernel / np.linalg.norm(kernel.astype("float64")))
    assert relative(product(kernel, inputs, 1.0, True), expected) <= 1e-5
    found = product_gradient(kernel, upstream, inputs, True)
    assert np.all(np.isfinite(found))
    assert np.all(found[:, 1] == 0.0)
    assert np.all(found[:, [0, 2]] != 0.0)


@each_size
@pytest.mark.parametrize("size", [1.0, 1e-20])
def test_zero_columns_give_zeros_and_have_zero_gradients(size, rows):
    kernel = (size * normal(8, 3)).astype("float32")
    kernel[:, 1] = 0.0
    inputs, upstream = normal(rows, 8, seed=1), normal(rows, 3, seed=2)
    outputs = to_numpy(product(kernel, inputs))
    assert np.all(outputs[:, 1] == 0.0)
    assert relative(outputs[:, [0, 2]], inputs @ equilibrated(kernel[:, [0, 2]])) <= 1e-5
    found = product_gradient(kernel, upstream, inputs)
    assert np.all(np.isfinite(found))
    assert np.all(found[:, 1] == 0.0)
    assert np.all(found[:, [0, 2]] != 0.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_weights_stay_visible_where_they_are(value):
    kernel = normal(64, 3)
    kernel[2, 1] = value
    outputs = to_numpy(product(kernel))
    assert np.all(np.isnan(outputs[:, 1]))
    assert np.all(np.isfinite(outputs[:, [0, 2]]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e15])
def test_second_derivatives_agree_with_those_of_the_formed_kernel(method, scale):
    """In the kernel, the gain and the bias together; forward over reverse on JAX."""
    start = [(scale * normal(16, 3)).astype("float32"), np.float32(1.5), normal(3, seed=4)]
    vectors = [(scale * normal(16, 3, seed=1)).astype("float32"), np.float32(0.5), normal(3)]
    inputs, upstream = normal(ROWS, 16, seed=2), normal(ROWS, 3, seed=3)

    def loss(outputs):
        return keras.ops.sum(keras.ops.multiply(keras.ops.tanh(outputs), upstream))

    def scaled(values):
        x = keras.ops.convert_to_tensor(inputs)
        return loss(method().product(x, *values))

    def formed(values):
        kernel, gain, bias = values
        return loss(keras.ops.matmul(inputs, method()(kernel)) * gain + bias)

    start, vectors = ([keras.ops.convert_to_tensor(x) for x in each] for each in (start, vectors))
    found = backends.hessian_product(scaled)(start, vectors)
    expected = backends.hessian_product(formed)(start, vectors)
    for one, other in zip(found, expected, strict=True):
        assert relative(one, other) <= 1e-4


@pytest.mark.parametrize("rows", [ROWS, 16])
@pytest.mark.parametrize("method", METHODS)
def test_no_gain_is_a_gain_of_one(method, rows):
    """In the outputs, the gradient and the gradient of that."""
    inputs, upstream = normal(rows, 16, seed=2), normal(rows, 3, seed=3)
    values, vectors = (
        [keras.ops.convert_to_tensor(normal(*shape, seed=seed)) for shape in ((16, 3), (3,))]
        for seed in (0, 1)
    )
    found = []
    for gain in (None, keras.ops.convert_to_tensor(np.float32(1.0))):

        def outputs(values, gain=gain):
            kernel, bias = values
            return method().product(keras.ops.convert_to_tensor(inputs), kernel, gain, bias)

        def loss(values, outputs=outputs):
            return keras.ops.sum(keras.ops.multiply(keras.ops.tanh(outputs(values)), upstream))

        first, second = backends.gradient(loss), backends.hessian_product(loss)
        found.append([outputs(values), *first(values), *second(values, vectors)])
    for without, with_one in zip(*found, strict=True):
        assert np.any(to_numpy(with_one) != 0.0)
        assert relative(without, with_one) <= 1e-6


@pytest.mark.skipif(IS_JAX, reason="JAX has no float64 unless jax_enable_x64 is set")
def test_float64_is_computed_in_float64():
    layer = ConditionedDense(UNITS, gain=2.0, dtype="float64")
    inputs = normal(ROWS, INPUTS, dtype="float64")
    outputs = layer(inputs)
    assert relative(outputs, inputs @ (2.0 * equilibrated(to_numpy(layer.kernel)))) <= 1e-14


@pytest.mark.parametrize("rows", [0, 1, 3, 32, 40, 64])
def test_any_number_of_rows_gives_the_gradient_of_the_formed_kernel(rows):
    kernel, inputs, upstream = normal(64, 5), normal(rows, 64), normal(rows, 5, seed=1)

    def loss(k):
        x = keras.ops.convert_to_tensor(inputs)
        outputs = backends.equilibrated_product(x, k, keras.ops.convert_to_tensor(np.float32(1.0)))
        assert tuple(outputs.shape) == upstream.shape
        return keras.ops.sum(keras.ops.multiply(outputs, upstream))

    expected = equilibrated_gradient(kernel, inputs.T @ upstream)
    np.testing.assert_allclose(gradient(loss, kernel), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "kernel", "is_cheaper"),
    [
        ((128, 1024), (1024, 1024), True),
        ((1024, 1024), (1024, 1024), True),
        ((4096, 1024), (1024, 1024), False),
        ((None, 1024), (1024, 10), False),  # Too small to gain by it.
        ((None, 1024), (1024, 1024), True),
        ((None, 197, 384), (384, 1536), False),
        ((2, 100, 384), (384, 1536), True),
    ],
)
def test_static_shapes_decide(inputs, kernel, is_cheaper):
    assert is_cheaper_than_kernel(inputs, kernel, 2.0) is is_cheaper


def test_matrix_methods_multiply_the_product_of_fewer_rows():
    assert is_cheaper_than_kernel((1000, 1024), (1024, 1024), 1.0)
    assert not is_cheaper_than_kernel((1500, 1024), (1024, 1024), 1.0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"dtype": "mixed_bfloat16"},
        {"dtype": "float16"},
        {"gain": "kernel_norm"},
        {"kernel_conditioner": "newton_orthogonalization"},
        {"kernel_conditioner": None},
    ],
    ids=str,
)
def test_elsewhere_the_kernel_is_formed(arguments, monkeypatch):
    monkeypatch.setattr(backends, "equilibrated_product", None)
    layer = ConditionedDense(UNITS, **arguments)
    assert layer(normal(ROWS, INPUTS)).shape == (ROWS, UNITS)


def test_range_within_which_squares_are_summed_as_they_are():
    """The smallest sum has lost nothing by underflow that a float32 would show."""
    low, high = SQUARES_WITHIN_RANGE
    info, entries = np.finfo("float32"), 10**6
    assert entries * info.tiny <= info.eps * low * 0.5
    assert high < info.max


def test_a_method_that_extends_another_is_not_cut_short():
    class Doubled(RowEquilibration):
        def condition(self, matrices):
            return 2.0 * super().condition(matrices)

    class Renamed(RowEquilibration):
        pass

    inputs = normal(ROWS, INPUTS)
    for method, factor in ((Doubled(), 2.0), (Renamed(), 1.0)):
        layer = ConditionedDense(UNITS, kernel_conditioner=method)
        outputs = layer(inputs)
        expected = factor * equilibrated(to_numpy(layer.kernel))
        assert relative(layer.conditioned_kernel, expected) <= 1e-6
        assert relative(outputs, inputs @ expected) <= 1e-5
    assert Renamed.product is RowEquilibration.product
