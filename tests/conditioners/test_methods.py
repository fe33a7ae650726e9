"""What every conditioning method has to show: the same tests for all of them."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_wcond import Conditioned, ConditionedConv2D, ConditionedInitializer, WeightConditioning
from keras_wcond import conditioners as package
from keras_wcond.kernels.layout import KernelLayout
from tests import methods_in_numpy
from tests.helpers import conditioned, gradient, normal, to_numpy
from tests.methods_in_numpy import KEEPING_THE_SCALE
from tests.reference import central_differences

METHODS = sorted(methods_in_numpy.METHODS)
SCALINGS = [
    "column_equilibration",
    "frobenius_normalization",
    "row_equilibration",
    "ruiz_equilibration",
]
KERNELS = {
    "tall": ((3, 7), KernelLayout()),
    "wide": ((9, 4), KernelLayout()),
    "square": ((6, 6), KernelLayout()),
    "one row": ((5, 1), KernelLayout()),
    "groups": ((3, 3, 2, 6), KernelLayout(blocks=2)),
    "depthwise": ((3, 3, 4, 2), KernelLayout((-2, -1), matrix_axes=-2)),
    "transposed": ((3, 3, 5, 2), KernelLayout(-2)),
    "projection": ((6, 2, 4), KernelLayout((1, 2))),
}


def apply(method, kernel, layout=-1):
    return conditioned(package.get(method), kernel, layout)


def test_every_method_has_a_reference():
    assert sorted(methods_in_numpy.names()) == METHODS


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", KERNELS)
def test_agrees_with_the_reference(name, kind):
    shape, layout = KERNELS[kind]
    kernel = normal(*shape)
    expected = methods_in_numpy.conditioned(name, kernel, layout)
    np.testing.assert_allclose(apply(name, kernel, layout), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 1), (4, 4)])
def test_gradient_agrees_with_finite_differences(name, shape):
    kernel, upstream = normal(*shape), normal(*shape, seed=1)
    conditioner = package.METHODS[name](differentiate_multiplier=True)
    result = gradient(lambda w: keras.ops.sum(keras.ops.multiply(conditioner(w), upstream)), kernel)
    arguments = {}
    if name == "polynomial_preconditioner":
        arguments["constant_bound"] = methods_in_numpy.norm_bound(kernel.astype("float64"), 8)

    def reference(w):
        return np.sum(methods_in_numpy.METHODS[name](w.T, **arguments).T * upstream)

    expected = central_differences(reference, kernel)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=2e-5 * np.abs(upstream).max())


# Another one has a bound that is a constant of the gradient.
@pytest.mark.parametrize("name", [name for name in METHODS if name != "polynomial_preconditioner"])
@pytest.mark.parametrize("kind", ["transposed", "depthwise", "projection"])
def test_gradient_agrees_with_finite_differences_in_other_layouts(name, kind):
    shape, layout = KERNELS[kind]
    kernel, upstream = normal(*shape), normal(*shape, seed=1)
    conditioner = package.METHODS[name](differentiate_multiplier=True)
    result = gradient(
        lambda w: keras.ops.sum(keras.ops.multiply(conditioner(w, layout), upstream)), kernel
    )

    def reference(w):
        return np.sum(conditioner.condition_kernel(w, layout) * upstream)

    expected = central_differences(reference, kernel)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=2e-5 * np.abs(upstream).max())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("shape", [(5, 40), (40, 5)])
def test_scale_of_the_kernel_is_of_no_matter(name, scale, shape):
    kernel = normal(*shape)
    expected = apply(name, kernel)
    if name in KEEPING_THE_SCALE:
        expected = expected.astype("float64") * scale
    result = apply(name, (kernel.astype("float64") * scale).astype("float32"))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", METHODS)
def test_zero_kernel_stays_zero_with_zero_gradient(name):
    conditioner = package.get(name)
    zeros = np.zeros((4, 3), "float32")
    np.testing.assert_array_equal(apply(name, zeros), 0.0)
    result = gradient(
        lambda w: keras.ops.sum(keras.ops.multiply(conditioner(w), normal(4, 3))), zeros
    )
    np.testing.assert_array_equal(result, 0.0)


@pytest.mark.parametrize("name", METHODS)
def test_zero_row_stays_zero_with_zero_gradient(name):
    conditioner = package.get(name)
    kernel = normal(5, 4)
    kernel[:, 2] = 0.0
    conditioned = apply(name, kernel)
    np.testing.assert_array_equal(conditioned[:, 2], 0.0)
    assert np.all(np.isfinite(conditioned))
    result = gradient(
        lambda w: keras.ops.sum(keras.ops.multiply(conditioner(w), normal(5, 4, seed=1))), kernel
    )
    assert np.all(np.isfinite(result))
    np.testing.assert_array_equal(result[:, 2], 0.0)


@pytest.mark.parametrize("name", METHODS)
def test_matrices_of_a_stack_are_of_no_matter_to_each_other(name):
    stack = normal(5, 4, 6)  # four channels with six rows each
    stack[:, 1, 2:] = 0.0
    stack[:2, 1] = 0.0
    stack[:, 2] *= 1e-30
    stack[:, 3] *= 1e30
    together = apply(name, stack, KernelLayout((-2, -1), matrix_axes=-2))
    for channel in range(4):
        alone = apply(name, stack[:, channel])
        bound = 1e-5 * np.abs(alone).max()
        np.testing.assert_allclose(together[:, channel], alone, rtol=1e-5, atol=bound)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_entries_stay_visible(name, value):
    kernel = normal(4, 3)
    kernel[1, 1] = value
    conditioned = apply(name, kernel)
    touched = {
        "row_equilibration": conditioned[:, 1],
        "weight_standardization": conditioned[:, 1],
        "column_equilibration": conditioned[1],
    }
    assert np.all(np.isnan(touched.get(name, conditioned)))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(name, dtype):
    kernel = keras.ops.cast(keras.ops.convert_to_tensor(normal(5, 4)), dtype)
    conditioner = package.get(name)
    result = conditioner(kernel)
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    expected = keras.ops.cast(conditioner(keras.ops.cast(kernel, "float32")), dtype)
    np.testing.assert_array_equal(
        to_numpy(keras.ops.cast(result, "float32")), to_numpy(keras.ops.cast(expected, "float32"))
    )


@pytest.mark.parametrize("name", METHODS)
def test_serves_layer_wrapper_constraint_and_initializer(name):
    convolution = ConditionedConv2D(4, 3, groups=2, kernel_conditioner=name)
    convolution.build((None, 6, 6, 4))
    kernel = to_numpy(convolution.kernel)
    expected = methods_in_numpy.conditioned(name, kernel, KernelLayout(blocks=2))
    np.testing.assert_allclose(
        to_numpy(convolution.conditioned_kernel), expected, rtol=1e-4, atol=1e-5
    )
    constraint = WeightConditioning(name, blocks=2)
    np.testing.assert_allclose(to_numpy(constraint(kernel)), expected, rtol=1e-4, atol=1e-5)

    recurrent = Conditioned(keras.layers.SimpleRNN(4), kernel_conditioner=name)
    recurrent.build((None, None, 3))
    path = "simple_rnn_cell/recurrent_kernel"
    raw, conditioned = recurrent.raw_kernels[path], recurrent.conditioned_kernels[path]
    expected = methods_in_numpy.conditioned(name, to_numpy(raw), KernelLayout())
    np.testing.assert_allclose(to_numpy(conditioned), expected, rtol=1e-4, atol=1e-5)

    # Not by an initializer of Keras', which draws other numbers on another device.
    drawn = normal(3, 4, 2)
    initializer = ConditionedInitializer(
        lambda shape, dtype: keras.ops.convert_to_tensor(drawn, dtype), name,
        unit_axes=(-2, -1), matrix_axes=-2,
    )  # fmt: skip
    expected = methods_in_numpy.conditioned(name, drawn, KernelLayout((-2, -1), matrix_axes=-2))
    np.testing.assert_allclose(to_numpy(initializer((3, 4, 2))), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_config_round_trip(name):
    conditioner = package.get(name)
    assert package.deserialize(package.serialize(conditioner)) == conditioner
    for constraint in (
        WeightConditioning(name, unit_axes=(-2, -1), matrix_axes=-2),
        WeightConditioning(name, blocks=2),
    ):
        config = keras.constraints.serialize(constraint)
        assert config["config"]["blocks"] == constraint.layout.blocks
        assert keras.constraints.deserialize(config).get_config() == constraint.get_config()


# Each takes a method twice, and one of them iterates.
half_as_many = settings(max_examples=settings().max_examples // 2)

kernels = st.builds(
    normal, st.sampled_from([3, 8]), st.sampled_from([3, 5]), seed=st.integers(0, 2**16)
)


@pytest.mark.parametrize("name", [*SCALINGS, "weight_standardization"])
@half_as_many
@given(kernel=kernels)
def test_applying_it_twice_is_applying_it_once(name, kernel):
    method = name
    if name == "ruiz_equilibration":  # Which converges slowly where entries are nearly zero.
        kernel = kernel + np.copysign(0.5, kernel)
        method = package.RuizEquilibration(iterations=100)
    once = apply(method, kernel)
    np.testing.assert_allclose(apply(method, once), once, atol=1e-5)


@pytest.mark.parametrize("name", sorted({*METHODS} - {*KEEPING_THE_SCALE}))
@half_as_many
@given(kernel=kernels, exponent=st.floats(-30, 30))
def test_scale_invariance(name, kernel, exponent):
    scaled = (kernel.astype("float64") * 10.0**exponent).astype("float32")
    expected = apply(name, kernel)
    np.testing.assert_allclose(apply(name, scaled), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if "row" in name or "weight" in name])
@half_as_many
@given(kernel=kernels, exponents=st.lists(st.floats(-20, 20), min_size=5, max_size=5))
def test_scales_of_rows_are_of_no_matter_to_methods_by_rows(name, kernel, exponents):
    scales = 10.0 ** np.array(exponents[: kernel.shape[1]])
    scaled = (kernel.astype("float64") * scales).astype("float32")
    np.testing.assert_allclose(apply(name, scaled), apply(name, kernel), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dead", ["rows", "columns"])
def test_mostly_zero_kernels_have_finite_gradients(name, dead):
    kernel = normal(40, 48)
    kernel[(slice(None), slice(3, None)) if dead == "rows" else slice(3, None)] = 0.0
    conditioner = package.get(name)
    assert np.all(np.isfinite(apply(name, kernel)))
    result = gradient(
        lambda w: keras.ops.sum(keras.ops.multiply(conditioner(w), normal(40, 48))), kernel
    )
    assert np.all(np.isfinite(result))


@pytest.mark.parametrize("name", METHODS)
def test_double_precision_is_computed_in_double_precision(name):
    shape, layout = (6, 5), KernelLayout()
    kernel = keras.ops.convert_to_tensor(normal(*shape).astype("float64"), dtype="float64")
    if keras.backend.standardize_dtype(kernel.dtype) != "float64":
        pytest.skip("JAX has no float64 unless it is switched on for the whole process")
    result = package.get(name)(kernel)
    assert keras.backend.standardize_dtype(result.dtype) == "float64"
    expected = methods_in_numpy.conditioned(name, to_numpy(kernel), layout)
    np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-9, atol=1e-11)
