"""What every conditioned layer promises, whatever it computes."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_wcond
from keras_wcond.conditioners import RowEquilibration
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning
from tests.helpers import kernel_gradient, normal, to_numpy
from tests.layers.cases import CASES, every_layer
from tests.reference import equilibrated_along, row_norms


@every_layer
def test_without_conditioner_it_is_the_plain_layer(case):
    layer, plain = case.layer(kernel_conditioner=None, gain=3.0), case.plain_layer()
    assert [w.name for w in layer.weights] == [w.name for w in plain.weights]
    plain.set_weights(layer.get_weights())
    inputs = case.inputs()
    np.testing.assert_array_equal(to_numpy(layer(*inputs)), to_numpy(plain(*inputs)))


@every_layer
@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_computes_what_the_plain_layer_computes_with_the_conditioned_kernels(case, gain):
    layer, plain = case.layer(gain=gain), case.plain_layer()
    kernels = {id(kernel): case.axes[path] for path, kernel in layer.raw_kernels.items()}
    assert len(kernels) == len(case.axes)
    plain.set_weights(
        [
            gain * equilibrated_along(to_numpy(w), kernels[id(w)]) if id(w) in kernels else w
            for w in layer.weights
        ]
    )
    inputs = case.inputs()
    expected = to_numpy(plain(*inputs))
    np.testing.assert_allclose(
        to_numpy(layer(*inputs)), expected, rtol=0.0, atol=1e-5 * np.max(np.abs(expected))
    )


@every_layer
def test_conditioned_kernels_have_unit_rows_and_raw_kernels_are_variables(case):
    layer = case.layer()
    raw, conditioned = layer.raw_kernels, layer.conditioned_kernels
    assert list(raw) == list(conditioned)
    assert set(raw) == set(case.axes)
    for path, axes in case.axes.items():
        assert any(raw[path] is variable for variable in layer.trainable_variables)
        np.testing.assert_allclose(row_norms(to_numpy(conditioned[path]), axes), 1.0, rtol=1e-5)
        expected = equilibrated_along(to_numpy(raw[path]), axes)
        np.testing.assert_allclose(to_numpy(conditioned[path]), expected, rtol=1e-5)


@every_layer
def test_a_layer_with_one_kernel_has_it_as_conditioned_kernel(case):
    layer = case.layer()
    if list(case.axes) == ["kernel"]:
        expected = to_numpy(layer.conditioned_kernels["kernel"])
        np.testing.assert_array_equal(to_numpy(layer.conditioned_kernel), expected)
    elif isinstance(layer, KernelConditioning):
        assert not hasattr(layer, "conditioned_kernel")
        with pytest.raises(AttributeError, match="with depthwise_kernel and pointwise_kernel"):
            _ = layer.conditioned_kernel
    else:
        assert not hasattr(layer, "conditioned_kernel")


@every_layer
@pytest.mark.parametrize("trainable_gain", [None, "per_unit"])
def test_variables_are_those_of_the_plain_layer_and_gains_that_were_asked_for(case, trainable_gain):
    layer, plain = case.layer(trainable_gain=trainable_gain), case.plain_layer()
    gains = {id(gain) for gain in layer.gain_weights}
    assert len(gains) == (0 if trainable_gain is None else len(case.axes))
    names = [variable.name for variable in layer.variables if id(variable) not in gains]
    assert names == [variable.name for variable in plain.variables]


@every_layer
@pytest.mark.parametrize("gain", [1.0, "initial_norm", "kernel_norm"])
def test_call_assigns_nothing_and_is_the_same_in_training(case, gain):
    layer = case.layer(gain=gain, trainable_gain="scalar")
    before = [to_numpy(variable).copy() for variable in layer.variables]
    inference = to_numpy(keras.ops.reshape(layer(*case.inputs()), (2, -1)))
    training = to_numpy(case.model(layer)(case.inputs(), training=True))
    np.testing.assert_array_equal(inference, training)
    for variable, value in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), value)


@every_layer
def test_gradient_in_the_raw_kernel_is_orthogonal_to_each_row(case):
    layer = case.layer()
    inputs = case.inputs()
    upstream = normal(*layer(*inputs).shape, seed=1)
    for path, axes in case.axes.items():
        letters, units = axes.split("->")
        kernel = to_numpy(layer.raw_kernels[path]).astype("float64")
        gradient = kernel_gradient(layer, inputs, upstream, layer.raw_kernels[path])
        products = np.einsum(f"{letters},{letters}->{units}", kernel, gradient)
        scale = row_norms(kernel, axes) * row_norms(gradient, axes)
        assert np.any(scale > 0.0)
        assert np.all(np.abs(products) <= 2e-5 * np.max(scale))


SHAPES = [(1, 1), (1, 5), (5, 1), (3, 8), (8, 3), (4, 4)]
# The range of scales in which a product with a kernel entry of [0.5, 1] stays normal.
POLICIES = {
    "float32": (30, 1e-5),
    "mixed_float16": (30, 3e-3),
    "mixed_bfloat16": (30, 3e-2),
    "float16": (4, 3e-3),
    "bfloat16": (30, 3e-2),
}


@given(
    policy=st.sampled_from(list(POLICIES)),
    shape=st.sampled_from(SHAPES),
    data=st.data(),
)
def test_scaling_rows_of_the_raw_kernel_leaves_the_outputs(policy, shape, data):
    largest, tolerance = POLICIES[policy]
    inputs, units = shape
    layer = keras_wcond.ConditionedDense(units, dtype=policy)
    layer.build((None, inputs))
    seed = data.draw(st.integers(0, 2**16))
    kernel = np.random.default_rng(seed).uniform(0.5, 1.0, size=shape)
    exponents = st.lists(st.floats(-largest, largest), min_size=units, max_size=units)
    scales = 10.0 ** np.array(data.draw(exponents))
    outputs = []
    for scaled in (kernel, kernel * scales):
        layer.kernel.assign(scaled)
        outputs.append(to_numpy(keras.ops.cast(layer(normal(3, inputs)), "float32")))
    # With unit rows, rounding moves an output by that part of the input's norm.
    bound = tolerance * np.linalg.norm(normal(3, inputs), axis=1, keepdims=True)
    assert np.all(np.abs(outputs[0] - outputs[1]) <= bound)


@given(exponents=st.lists(st.floats(-15.0, 15.0), min_size=4, max_size=4))
def test_scaling_filters_of_the_raw_kernel_leaves_the_outputs(exponents):
    outputs = []
    for scales in (1.0, 10.0 ** np.array(exponents)):
        SCALED.kernel.assign(normal(3, 3, 3, 4) * scales)
        outputs.append(to_numpy(SCALED(*CASES["Conv2D, groups"].inputs())))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)


SCALED = CASES["Conv2D, groups"].layer()


@every_layer
@pytest.mark.parametrize(
    "arguments",
    [
        {"gain": 2.5, "use_bias": False},
        {"gain": "initial_norm"},
        {"gain": "kernel_norm"},
        {"trainable_gain": "per_unit"},
        {"kernel_conditioner": None},
        {"dtype": "mixed_bfloat16"},
    ],
    ids=str,
)
def test_folded_layer_is_plain_and_computes_the_same(case, arguments):
    if "bias_axes" in case.arguments and "use_bias" in arguments:
        arguments = {"gain": 2.5, "bias_axes": None}
    layer = case.layer(**arguments)
    for gain in layer.gain_weights:
        gain.assign(np.arange(2.0, 2.0 + np.prod(gain.shape)).reshape(gain.shape))
    layer.trainable = False
    before = layer.get_weights()
    folded = layer.fold()
    assert type(folded) is case.plain
    assert folded.name == layer.name
    assert not folded.trainable
    inputs = case.inputs()
    expected = to_numpy(keras.ops.cast(layer(*inputs), "float32"))
    np.testing.assert_allclose(
        to_numpy(keras.ops.cast(folded(*inputs), "float32")),
        expected,
        rtol=0.0,
        atol=case.rounding(layer, expected),
    )
    for weight, value in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


@every_layer
def test_folded_layer_trains_apart_from_the_conditioned_one(case):
    """On JAX, training gives away the memory of the arrays it replaces."""
    layer = case.layer(gain="initial_norm")
    inputs = case.inputs()
    before = to_numpy(layer(*inputs))
    plain = case.model(layer.fold())
    plain.compile("sgd", "mse")
    plain.fit(inputs, np.zeros(plain(inputs).shape), verbose=0)
    np.testing.assert_array_equal(to_numpy(layer(*inputs)), before)


def test_folding_keeps_what_is_frozen_and_functions_as_they_are():
    def gaussian(x):
        return keras.ops.exp(-keras.ops.square(x))

    layer = CASES["Dense"].layer(activation=gaussian, gain="auto", trainable_gain="scalar")
    layer.kernel.trainable = False
    folded = layer.fold()
    assert folded.activation is gaussian
    assert not folded.kernel.trainable
    assert folded.bias.trainable


def test_subclass_folds_only_if_it_computes_the_same():
    class Renamed(keras_wcond.ConditionedDense):
        pass

    class Doubled(keras_wcond.ConditionedDense):
        def call(self, inputs, training=None):
            return 2.0 * super().call(inputs, training=training)

    (inputs,) = CASES["Dense"].inputs()
    renamed, doubled = Renamed(4), Doubled(4, name="mine")
    outputs, _ = renamed(inputs), doubled(inputs)
    np.testing.assert_allclose(to_numpy(renamed.fold()(inputs)), to_numpy(outputs), rtol=1e-5)
    with pytest.raises(ValueError, match=r"Received: layer.name='mine' of type .*Doubled, which"):
        doubled.fold()


@every_layer
def test_unbuilt_layer_has_no_conditioned_kernel(case):
    layer = case.conditioned(**case.arguments, name="unbuilt")
    message = r"Expected a built layer.*Received: layer.name='unbuilt'.*`build\(\)`, first"
    with pytest.raises(AttributeError, match=message):
        _ = layer.conditioned_kernels
    for name in ("conditioned_kernel", "conditioned_kernels"):
        assert not hasattr(layer, name)
    with pytest.raises(ValueError, match=message):
        layer.fold()


@every_layer
def test_norms_are_taken_of_the_full_kernel_under_mixed_precision(case):
    """Rows that float16 cannot hold are conditioned all the same."""
    layer = case.layer(dtype="mixed_float16")
    for kernel in layer.raw_kernels.values():
        kernel.assign(1e-15 * normal(*kernel.shape))
    for path, conditioned in layer.conditioned_kernels.items():
        assert keras.backend.standardize_dtype(conditioned.dtype) == "float16"
        expected = equilibrated_along(to_numpy(layer.raw_kernels[path]), case.axes[path])
        conditioned = to_numpy(conditioned).astype("float64")
        np.testing.assert_allclose(conditioned, expected, rtol=1e-2, atol=1e-3)
    assert np.any(to_numpy(layer(*case.inputs())) != 0.0)


@every_layer
def test_regularizer_sees_the_raw_kernel(case):
    names = [f"{path.removesuffix('_kernel')}_regularizer" for path in case.axes]
    names = names if len(names) == 2 else ["kernel_regularizer"]
    names = ["depthwise_regularizer"] if "Depthwise" in case.plain.__name__ else names
    layer = case.layer(**dict.fromkeys(names, keras.regularizers.L2(0.5)))
    layer(*case.inputs())
    kernels = [to_numpy(kernel).astype("float64") for kernel in layer.raw_kernels.values()]
    expected = sum(0.5 * np.sum(kernel**2) for kernel in kernels)
    np.testing.assert_allclose(sum(float(to_numpy(x)) for x in layer.losses), expected, rtol=1e-5)


def test_automatic_gain_of_a_separable_layer_is_for_the_kernel_before_the_activation():
    case = CASES["SeparableConv1D"]
    kernels = case.layer(gain="auto").conditioned_kernels
    norms = {path: row_norms(to_numpy(kernels[path]), axes) for path, axes in case.axes.items()}
    np.testing.assert_allclose(norms["depthwise_kernel"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(norms["pointwise_kernel"], np.sqrt(2.0), rtol=1e-4)


def test_equation_without_output_units_is_refused():
    layer = keras_wcond.ConditionedEinsumDense("ab,b->ab", (3,), name="scaling")
    message = r"axis that appears in the output.*Received: equation='ab,b->ab'.*'scaling'"
    with pytest.raises(ValueError, match=message):
        layer.build((None, 3))


def test_masks_pass_through():
    model = keras.Sequential([keras.layers.Masking(), keras_wcond.ConditionedDense(4)])
    inputs = normal(2, 5, 3)
    inputs[:, 3:] = 0.0
    mask = to_numpy(model(inputs)._keras_mask)
    np.testing.assert_array_equal(mask, [[True] * 3 + [False] * 2] * 2)


@every_layer
def test_instances_and_configs_serve_as_conditioner(case):
    for conditioner in (RowEquilibration(), {"class_name": "RowEquilibration", "config": {}}):
        assert case.layer(kernel_conditioner=conditioner).kernel_conditioner == RowEquilibration()
    with pytest.raises(ValueError, match="Expected the name of a conditioner"):
        case.layer(kernel_conditioner="no_such_method")


def test_non_finite_weights_stay_visible():
    layer = CASES["Dense"].layer()
    kernel = to_numpy(layer.kernel).copy()
    kernel[1, 2] = np.nan
    layer.kernel.assign(kernel)
    outputs = to_numpy(layer(*CASES["Dense"].inputs()))
    np.testing.assert_array_equal(np.isnan(outputs), [[False, False, True, False]] * 2)
