"""LoRA conditions the merged kernel; quantizing folds first."""

import itertools

import keras
import numpy as np
import pytest

import keras_wcond
from tests.helpers import normal, relative, to_numpy
from tests.layers.cases import CASES, every_lora_layer
from tests.reference import equilibrated_along

SETTINGS = [
    {},
    {"gain": 2.0},
    {"gain": "initial_norm"},
    {"gain": "kernel_norm"},
    {"trainable_gain": "per_unit"},
]
every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=str)


def with_lora(case, **setting):
    layer = case.layer(**setting)
    layer.enable_lora(2, lora_alpha=3)
    layer.lora_kernel_b.assign(normal(*layer.lora_kernel_b.shape))
    return layer


@every_lora_layer
def test_effective_kernel_is_the_conditioned_merged_kernel(case):
    layer = with_lora(case)
    ((_, axes),) = case.axes.items()
    update = to_numpy(layer.lora_kernel_a) @ to_numpy(layer.lora_kernel_b)
    raw = to_numpy(next(weight for weight in layer.weights if weight.name == "kernel"))
    merged = raw + 3 / 2 * update
    expected = equilibrated_along(merged, axes)
    np.testing.assert_allclose(to_numpy(layer.conditioned_kernel), expected, rtol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_merged_kernel_is_conditioned_in_the_precision_that_it_is_stored_in(policy):
    if policy == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 only where x64 is switched on for the whole process")
    layer = with_lora(CASES["Dense"], dtype=policy)
    raw, a, b = (
        to_numpy(weight).astype("float64")
        for weight in (layer.raw_kernels["kernel"], layer.lora_kernel_a, layer.lora_kernel_b)
    )
    expected = equilibrated_along(raw + 3 / 2 * a @ b, "iu->u")
    # Keras merges kernels in the compute dtype.
    tolerance = 1e-12 if policy == "float64" else 1e-6
    folded = to_numpy(layer.fold().kernel)
    np.testing.assert_allclose(folded, expected, rtol=tolerance, atol=tolerance)
    assert layer(CASES["Dense"].inputs()[0]).shape == (2, 4)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_adapters_are_offered_by_the_layers_that_have_them_in_keras(case):
    layer, plain = case.layer(), case.plain_layer()
    assert hasattr(layer, "enable_lora") == hasattr(plain, "enable_lora")
    if not hasattr(plain, "enable_lora"):
        with pytest.raises(AttributeError, match=r"object has no attribute 'enable_lora'"):
            layer.enable_lora(2)


@every_lora_layer
@every_setting
def test_lora_layer_computes_what_its_folded_plain_layer_computes(case, setting):
    layer = with_lora(case, **setting)
    folded = layer.fold()
    assert type(folded) is case.plain
    assert not folded.lora_enabled
    # LoRA freezes the kernel. The merged one is trained as any other.
    assert [weight.name for weight in folded.trainable_weights] == ["kernel", "bias"]
    inputs = case.inputs()
    outputs, expected = to_numpy(layer(*inputs)), to_numpy(folded(*inputs))
    rounding = case.rounding(layer, expected)
    np.testing.assert_allclose(outputs, expected, rtol=0.0, atol=rounding)


@every_lora_layer
def test_lora_argument_and_training(case):
    layer = case.conditioned(**case.arguments, lora_rank=2, gain="initial_norm")
    model = case.model(layer)
    names = {weight.name for weight in layer.trainable_weights}
    assert names == {"bias", "lora_kernel_a", "lora_kernel_b"}
    before = [to_numpy(weight).copy() for weight in layer.weights]
    model.compile(keras.optimizers.SGD(0.1), "mse")
    inputs = case.inputs()
    model.fit(inputs, normal(*model(inputs).shape, seed=3), epochs=2, verbose=0)
    for weight, value in zip(layer.weights, before, strict=True):
        assert np.any(to_numpy(weight) != value) == weight.trainable, weight.name


# Each setting with and without LoRA, and each mode in all that it may depend on.
@pytest.mark.parametrize(
    ("setting", "mode", "lora", "name"),
    [
        *itertools.product(SETTINGS, ["int8"], [False, True], ["Dense"]),
        *itertools.product(SETTINGS[2:3], ["int4"], [False, True], ["Dense", "EinsumDense"]),
        *itertools.product(SETTINGS[2:3], ["int8"], [False, True], ["EinsumDense"]),
    ],
    ids=str,
)
def test_quantized_layer_equals_the_quantized_folded_plain_layer(setting, mode, lora, name):
    case = CASES[name]
    layer = with_lora(case, **setting) if lora else case.layer(**setting)
    folded = layer.fold()
    layer.quantize(mode)
    folded.quantize(mode)
    inputs = case.inputs()
    np.testing.assert_array_equal(to_numpy(layer(*inputs)), to_numpy(folded(*inputs)))
    assert layer.kernel_conditioner is None
    assert "gain" not in [weight.name for weight in layer.weights]


def test_model_quantizes_and_survives_saving(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras_wcond.ConditionedDense(16, activation="relu", gain="initial_norm"),
            keras_wcond.ConditionedDense(4, trainable_gain="scalar"),
        ]
    )
    inputs = normal(5, 8)
    exact = to_numpy(model(inputs))
    model.quantize("int8")
    quantized = model.predict(inputs, verbose=0)
    assert 0.0 < np.max(np.abs(quantized - exact)) < 0.05
    model.save(tmp_path / "int8.keras")
    loaded = keras.models.load_model(tmp_path / "int8.keras")
    assert [layer.quantization_mode for layer in loaded.layers] == ["int8", "int8"]
    np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), quantized)


def test_setting_a_quantized_policy_folds_too():
    case = CASES["Dense"]
    layer = case.layer(gain=2.0)
    folded = layer.fold()
    layer.dtype_policy = folded.dtype_policy = "int8_from_float32"
    inputs = case.inputs()
    np.testing.assert_array_equal(to_numpy(layer(*inputs)), to_numpy(folded(*inputs)))


def test_quantized_layer_folds_into_a_quantized_plain_layer():
    case = CASES["Dense"]
    layer = case.layer(gain="initial_norm")
    layer.quantize("int8")
    folded = layer.fold()
    assert type(folded) is case.plain
    assert folded.quantization_mode == "int8"
    assert folded.bias.trainable
    inputs = case.inputs()
    np.testing.assert_array_equal(to_numpy(folded(*inputs)), to_numpy(layer(*inputs)))


@pytest.mark.parametrize("name", ["Conv1D", "Conv2DTranspose"])
def test_failed_quantization_leaves_the_layer_as_it_was(name):
    """Keras has no quantized convolutions."""
    layer = CASES[name].layer(gain="initial_norm")
    inputs, before = CASES[name].inputs(), layer.get_weights()
    outputs = to_numpy(layer(*inputs))
    with pytest.raises(NotImplementedError):
        layer.quantize("int8")
    for weight, value in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    np.testing.assert_array_equal(to_numpy(layer(*inputs)), outputs)


def test_subclass_is_refused_as_keras_does():
    class Doubled(keras_wcond.ConditionedDense):
        pass

    layer = Doubled(4)
    layer.build((None, 3))
    before = to_numpy(layer.kernel).copy()
    with pytest.raises(NotImplementedError):
        layer.quantize("int8")
    np.testing.assert_array_equal(to_numpy(layer.kernel), before)
    layer.quantize("int8", type_check=False)
    assert layer.quantization_mode == "int8"


def test_conditioned_layer_cannot_be_built_quantized():
    layer = keras_wcond.ConditionedDense(4, dtype="int8_from_float32")
    message = r"floating-point dtype policy.*Received: dtype='int8_from_float32'.*quantize\(\)"
    with pytest.raises(ValueError, match=message):
        layer.build((None, 3))


def attention(**setting):
    layer = keras_wcond.ConditionedMultiHeadAttention(2, 8, **setting)
    layer.build((None, 5, 16), (None, 5, 16))
    return layer


@pytest.mark.parametrize(
    ("setting", "lora"),
    [({}, False), ({"gain": "initial_norm"}, True), ({"trainable_gain": "per_unit"}, True)],
)
def test_quantized_attention_equals_the_quantized_folded_plain_layer(setting, lora):
    layer, inputs = attention(**setting), normal(2, 5, 16)
    if lora:
        for projection in (layer.query_dense, layer.value_dense):
            projection.enable_lora(2)
            projection.lora_kernel_b.assign(normal(*projection.lora_kernel_b.shape))
    folded = layer.fold()
    assert not any(inner.lora_enabled for inner in (folded.query_dense, folded.value_dense))
    tolerance = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(
        to_numpy(folded(inputs, inputs)), to_numpy(layer(inputs, inputs)), **tolerance
    )
    models = [keras.Sequential([keras.Input((5, 16)), SelfAttention(x)]) for x in (layer, folded)]
    for model in models:
        model.quantize("int8")
    assert layer.query_dense.quantization_mode == "int8"
    outputs = [to_numpy(model(inputs)) for model in models]
    np.testing.assert_allclose(*outputs, **tolerance)
    with pytest.raises(ValueError, match=r"before it is quantized.*'query', 'key', 'value'"):
        layer.fold()


class SelfAttention(keras.layers.Layer):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention
        self.built = True

    def call(self, inputs):
        return self.attention(inputs, inputs)


@pytest.mark.parametrize("name", ["Dense", "Dense, wide", "EinsumDense"])
@pytest.mark.parametrize("has_lora", [False, True])
def test_quantized_layer_folds_into_a_quantized_plain_one(name, has_lora):
    case = CASES[name]
    layer = case.layer(gain="initial_norm")
    layer.quantize("int8")
    if has_lora:
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(0.1 * normal(*layer.lora_kernel_b.shape))
    folded = layer.fold()
    assert type(folded) is case.plain
    assert folded.quantization_mode == "int8"
    inputs = case.inputs()
    outputs, expected = to_numpy(folded(*inputs)), to_numpy(layer(*inputs))
    # Without adapters the same integers; with them, the merged kernel is rounded again.
    assert relative(outputs, expected) <= (2e-2 if has_lora else 0.0)
