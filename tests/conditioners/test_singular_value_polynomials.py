"""The methods that apply polynomials to singular values."""

import keras
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import linalg

from keras_wcond import ConditionedDense, conditioners
from keras_wcond.conditioners import (
    NewtonOrthogonalization,
    NewtonStep,
    PolarExpress,
    PolynomialPreconditioner,
)
from keras_wcond.conditioners.singular_value_polynomial import SingularValuePolynomial
from keras_wcond.kernels.layout import KernelLayout
from keras_wcond.linalg.gram_iteration import are_tall, bounded, wide
from keras_wcond.linalg.minimax import minimax_polynomials
from tests import helpers, methods_in_numpy
from tests.helpers import normal, to_numpy

SHAPES = [(7, 30), (30, 7), (20, 20), (1, 9), (9, 1)]
SPECTRA = {
    "random": lambda random, n: np.linalg.svd(random.normal(size=(n, n)), compute_uv=False),
    "equal": lambda random, n: np.ones(n),
    "one": lambda random, n: np.array([1.0, *np.zeros(n - 1)]),
    "decaying": lambda random, n: np.geomspace(1.0, 1e-6, n),
}


def kernel_with(spectrum, shape, seed=0):
    random = np.random.default_rng(seed)
    rank = min(shape)
    left, _ = np.linalg.qr(random.normal(size=(shape[0], rank)))
    right, _ = np.linalg.qr(random.normal(size=(shape[1], rank)))
    return ((left * SPECTRA[spectrum](random, rank)) @ right.T).astype("float32")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_bound_is_above_the_largest_singular_value_and_near_it(shape, spectrum, iterations):
    matrix = kernel_with(spectrum, shape)
    matrix = matrix / np.abs(matrix).max()
    largest = np.linalg.norm(matrix.astype("float64"), ord=2)
    matrices = matrix[None]
    found = bounded(
        wide(matrices, are_tall(matrices)), np.zeros((1, 1, 1), bool), iterations, by_row_sums=True
    )
    bound = 1.0 / found.inverse[0, 0, 0]
    assert (
        largest * (1.0 - 1e-6)
        <= bound
        <= largest * min(shape) ** (0.5 ** (iterations + 1)) * (1.0 + 1e-6)
    )
    np.testing.assert_allclose(
        bound,
        methods_in_numpy.norm_bound(matrix.astype("float64"), 2 ** (iterations - 1)),
        rtol=1e-5,
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("steps", "lower", "degree"), [(1, 0.05, 5), (3, 0.01, 5), (4, 0.1, 3)])
def test_polar_express_maps_singular_values_one_by_one(shape, scale, steps, lower, degree):
    kernel = scale * normal(*shape)
    method = PolarExpress(steps=steps, lower=lower, degree=degree)
    polynomials = minimax_polynomials(steps, lower, degree)
    expected = methods_in_numpy.polar_express(kernel.astype("float64").T, polynomials).T
    np.testing.assert_allclose(helpers.conditioned(method, kernel), expected, atol=3e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "method", [PolarExpress(steps=10), NewtonOrthogonalization(30, center=False)]
)
def test_limit_is_the_polar_factor(shape, method):
    kernel = normal(*shape)
    expected, _ = linalg.polar(kernel.astype("float64"))
    np.testing.assert_allclose(helpers.conditioned(method, kernel), expected, atol=1e-5)


def test_limit_of_steps_on_a_stored_kernel_is_the_polar_factor_at_the_norm_of_the_kernel():
    kernel = normal(24, 16)
    expected, _ = linalg.polar(kernel.astype("float64"))
    expected *= np.linalg.norm(kernel) / np.linalg.norm(expected)
    for _ in range(40):
        kernel = helpers.conditioned(NewtonStep(), kernel)
    np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-5)


@given(
    seed=st.integers(0, 2**16),
    shape=st.sampled_from(SHAPES),
    spectrum=st.sampled_from(sorted(SPECTRA)),
    strength=st.sampled_from([0.1, 0.5, 1.0]),
    center=st.booleans(),
    exponent=st.floats(-12, 12),
)
# Its two largest singular values both fall below the third.
@example(seed=360, shape=(7, 30), spectrum="random", strength=1.0, center=True, exponent=0.0)
def test_a_step_is_safe_from_any_start(seed, shape, spectrum, strength, center, exponent):
    kernel = (kernel_with(spectrum, shape, seed) * 10.0**exponent).astype("float32")
    step = NewtonStep(strength=strength, center=center)
    once = helpers.conditioned(step, kernel)
    assert np.all(np.isfinite(once))
    matrix = kernel.astype("float64").T
    matrix = methods_in_numpy.centered(matrix) if center else matrix
    before = np.linalg.svd(matrix, compute_uv=False)
    after = np.linalg.svd(once.astype("float64"), compute_uv=False)
    norm = np.linalg.norm(kernel.astype("float64"))
    if np.linalg.norm(matrix) > 1e-5 * norm:  # Not rounding errors of means.
        np.testing.assert_allclose(np.linalg.norm(once), norm, rtol=1e-3)
        expected = methods_in_numpy.newton_step(kernel.astype("float64").T, strength, center).T
        assert np.linalg.norm(once - expected) < 1e-4 * norm
        # Values above s may fall and change places, but the condition number does not grow.
        last = np.count_nonzero(before > 1e-3 * before[0]) - 1
        assert after[last] / after[0] >= before[last] / before[0] - 1e-4


@pytest.mark.parametrize("layout", [KernelLayout(blocks=2), KernelLayout((-2, -1), matrix_axes=-2)])
@pytest.mark.parametrize("name", ["newton_step", "polar_express"])
def test_groups_gates_and_channels_are_matrices_of_their_own(name, layout):
    kernel = normal(3, 2, 4, 6)
    result = helpers.conditioned(conditioners.get(name), kernel, layout)
    expected = methods_in_numpy.conditioned(name, kernel, layout)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


METHODS = [
    NewtonOrthogonalization(),
    NewtonOrthogonalization(2, center=False),
    PolarExpress(),
    PolarExpress(steps=3, center=True),
    PolynomialPreconditioner(),
    PolynomialPreconditioner(2),
]


@pytest.mark.parametrize("shape", [(9, 4), (6, 6), (2, 2, 6)])
@pytest.mark.parametrize(
    "method",
    [PolarExpress(center=True), PolynomialPreconditioner(), NewtonStep(), NewtonStep(center=True)],
    ids=repr,
)
def test_the_order_of_axes_makes_no_difference(shape, method):
    kernel = normal(*shape)
    found = helpers.conditioned(method, kernel)
    moved = helpers.conditioned(method, np.moveaxis(kernel, -1, 0), 0)
    np.testing.assert_allclose(np.moveaxis(moved, 0, -1), found, rtol=1e-4, atol=1e-5)


# Without full rank, and with a mean: the inputs have directions that the kernel removes.
@pytest.mark.parametrize("shape", [(256, 128), (128, 256), (200, 200)])
@pytest.mark.parametrize(
    "method",
    [
        NewtonOrthogonalization(iterations=5),
        NewtonOrthogonalization(iterations=9),
        NewtonOrthogonalization(iterations=10),
        NewtonOrthogonalization(iterations=40, center=False),
        PolarExpress(steps=3, center=True),
        PolarExpress(steps=8, center=True),
    ],
    ids=repr,
)
def test_outputs_of_few_inputs_are_those_of_the_conditioned_kernel(method, shape):
    layer = ConditionedDense(shape[1], kernel_conditioner=method)
    layer.build((None, shape[0]))
    layer.kernel.assign(normal(shape[0], 60) @ normal(60, shape[1], seed=1))
    x = normal(8, shape[0], seed=2) + 3.0
    kernel = to_numpy(layer.conditioned_kernel).astype("float64")
    errors = np.abs(to_numpy(layer(x)) - x @ kernel)
    # Relative to the sums of magnitudes, which the rounding errors of a product are bounded by.
    assert np.max(errors / (np.abs(x) @ np.abs(kernel))) <= 5e-6


@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (256, 256)])
@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("differentiate", [False, True])
def test_product_and_kernel_give_the_same_outputs_and_gradients(shape, method, differentiate):
    config = {**method.get_config(), "differentiate_multiplier": differentiate}
    method = type(method)(**config)
    x, upstream, kernel = normal(9, shape[0]), normal(9, shape[1], seed=1), normal(*shape, seed=2)

    gain, bias = (keras.ops.convert_to_tensor(normal(shape[1], seed=seed)) for seed in (3, 4))

    def by_product(w):
        tensors = (keras.ops.convert_to_tensor(each) for each in (x, w))
        return method.product(*tensors, gain, bias)

    def by_kernel(w):
        return keras.ops.matmul(x, method(w)) * gain + bias

    np.testing.assert_allclose(
        to_numpy(by_product(kernel)), to_numpy(by_kernel(kernel)), rtol=1e-4, atol=1e-4
    )
    found, expected = (
        helpers.gradient(lambda w: keras.ops.sum(keras.ops.multiply(form(w), upstream)), kernel)  # noqa: B023
        for form in (by_product, by_kernel)
    )
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("gain", [1.0, 2.0, "initial_norm"])
@pytest.mark.parametrize("rows", [8, 400, 2000])
def test_layer_multiplies_the_product_for_few_rows_and_the_kernel_for_many(monkeypatch, gain, rows):
    forms = []
    monkeypatch.setattr(
        PolarExpress, "product", lambda self, *args: forms.append(len(args[0])) or None
    )
    layer = ConditionedDense(200, kernel_conditioner="polar_express", gain=gain)
    layer(normal(rows, 300))
    assert forms == ([8] if rows == 8 else [])


@pytest.mark.parametrize("shape", [(12, 40), (96, 32)])
def test_rounding_errors_do_not_grow_with_the_number_of_polynomials(shape):
    kernel = kernel_with("decaying", shape)
    found = NewtonOrthogonalization(20, center=False).condition_stack(kernel[None])[0]
    expected = methods_in_numpy.newton_orthogonalization(kernel.astype("float64"), 20, False)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("method", ["newton_step", "polar_express", "newton_orthogonalization"])
def test_zero_and_constant_kernels_become_zero_with_zero_gradients_by_centering(method):
    conditioner = conditioners.get({"class_name": method, "config": {"center": True}})
    for kernel in (np.zeros((5, 4), "float32"), np.ones((5, 4), "float32")):
        np.testing.assert_array_equal(helpers.conditioned(conditioner, kernel), 0.0)
        found = helpers.gradient(
            lambda w: keras.ops.sum(keras.ops.multiply(conditioner(w), normal(5, 4))), kernel
        )
        np.testing.assert_array_equal(helpers.to_numpy(found), np.zeros((5, 4)))


def test_zero_matrices_have_an_inverse_bound_of_zero():
    zeros = np.zeros((1, 3, 5))
    found = bounded(zeros, np.full((1, 1, 1), True), iterations=2)
    np.testing.assert_array_equal(found.inverse, 0.0)
    np.testing.assert_array_equal(found.squared_norm, 1.0)
    assert np.all(np.isfinite(found.gram.matrix * found.gram.factor))


@pytest.mark.parametrize("gram_iterations", [1, 2, 3])
def test_own_polynomial_with_few_gram_iterations(gram_iterations):
    class Own(SingularValuePolynomial):
        polynomials = ((2.0, -1.5, 0.25, -0.125), (1.5, -0.5, 0.125))

        def get_config(self):
            return {}

    Own.gram_iterations = gram_iterations
    # The bound of a single row is its norm, so that the singular value 1 is mapped.
    kernel = 3.0 * normal(7, 1)
    conditioned = to_numpy(Own(False, False)(kernel)).astype("float64")
    expected = methods_in_numpy.composed(Own.polynomials)(1.0)
    np.testing.assert_allclose(np.linalg.norm(conditioned), expected, rtol=1e-5)
    Own.keeps_largest = True
    conditioned = to_numpy(Own(True, False)(kernel)).astype("float64")
    norm = np.linalg.norm(kernel - kernel.mean())
    np.testing.assert_allclose(np.linalg.norm(conditioned), norm * expected, rtol=1e-5)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"`steps` to be a positive integer. Received: steps=0"):
        PolarExpress(steps=0)
    for lower in (0.0, 1.0, -1.0, float("nan"), "0.1"):
        with pytest.raises(ValueError, match=r"`lower` to be a number above 0 and below 1. Recei"):
            PolarExpress(lower=lower)
    for degree in (4, np.array(3)):
        with pytest.raises(ValueError, match=r"`degree` to be 3 or 5. Received: degree="):
            PolarExpress(degree=degree)
    for strength in (0.0, 1.5, None):
        with pytest.raises(ValueError, match=r"`strength` to be a number above 0 .* Received"):
            NewtonStep(strength=strength)
    for method in conditioners.METHODS.values():
        with pytest.raises(
            TypeError, match=r"`differentiate_multiplier` to be a boolean. Received"
        ):
            method(differentiate_multiplier=1)


def test_tiny_kernels_of_nearly_equal_entries_stay_finite():
    kernel = (1e-37 * (1.0 + 1e-3 * normal(6, 9))).astype("float32")
    assert np.all(np.isfinite(to_numpy(NewtonStep(center=True)(kernel))))
