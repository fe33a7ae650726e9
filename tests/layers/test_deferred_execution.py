"""Bodies that run later, apart or for sizes not known yet compute what they compute at once."""

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned, ConditionedDense
from tests.helpers import gradient, kernel_gradient, normal, relative, to_numpy
from tests.layers.cases import CASES, every_layer
from tests.layers.deferred import (
    BACKEND,
    Around,
    conditioned,
    every_form,
    layers,
    weights_after_training,
)


def in_scope(case, form, mode):
    with keras.RematScope(mode=mode):
        return conditioned(case, form, gain="kernel_norm")


@pytest.mark.skipif(BACKEND == "jax", reason="the next test has JAX' gradients of every layer")
@every_form
@every_layer
def test_rematerialized_layers_train_as_others(case, form):
    trained = [weights_after_training(in_scope(case, form, mode), case) for mode in (None, "full")]
    for plain, rematerialized in zip(*trained, strict=True):
        assert relative(rematerialized, plain) <= 1e-5


@pytest.mark.skipif(BACKEND != "jax", reason="PyTorch runs the body again outside a stateless call")
@every_form
@every_layer
def test_rematerialized_layers_have_the_gradients_of_others(case, form):
    found = []
    for mode in (None, "full"):
        layer = in_scope(case, form, mode)
        x = case.inputs(2)
        outputs = layer(*x)
        for i, weight in enumerate(layer.weights):
            weight.assign(normal(*weight.shape, seed=i))
        kernels = list(layer.raw_kernels.values())
        found.append([kernel_gradient(layer, x, 1.0 + 0.0 * outputs, k) for k in kernels[:2]])
    for plain, rematerialized in zip(*found, strict=True):
        assert np.max(np.abs(plain)) > 0.0
        assert relative(rematerialized, plain) <= 1e-5


@pytest.mark.skipif(BACKEND != "jax", reason="the first test has every layer of the others")
@every_form
def test_rematerialized_layer_trains_as_another_after_an_eager_call(form):
    """JAX keeps what it traced of a function: here, with the weights of the first call."""
    case = CASES["Dense"]
    trained = [weights_after_training(in_scope(case, form, mode), case) for mode in (None, "full")]
    for plain, rematerialized in zip(*trained, strict=True):
        assert relative(rematerialized, plain) <= 1e-5


@keras.saving.register_keras_serializable("tests")
class Rematerialized(layers.Layer):
    """A layer that rematerializes one of those inside it, and not itself."""

    def __init__(self, mode="full", **kwargs):
        super().__init__(**kwargs)
        self.mode = mode
        with keras.RematScope(mode=mode):
            self.inner = layers.Dense(4, activation="tanh")
        self.norm = layers.BatchNormalization()
        self.outer = layers.Dense(3)

    def build(self, input_shape):
        self.inner.build(input_shape)
        self.norm.build((*input_shape[:-1], 4))
        self.outer.build((*input_shape[:-1], 4))

    def call(self, inputs):
        return self.outer(self.norm(self.inner(inputs)))

    def get_config(self):
        return {**super().get_config(), "mode": self.mode}


@pytest.mark.parametrize("mode", ["full", "activations"])
def test_rematerialized_layers_inside_a_wrapped_one(mode):
    case = CASES["Dense"]
    trained = [
        weights_after_training(Conditioned(Rematerialized(mode), gain="initial_norm"), case)
        for mode in (None, mode)
    ]
    for plain, rematerialized in zip(*trained, strict=True):
        assert relative(rematerialized, plain) <= 1e-5


@pytest.mark.parametrize("form", ["class", "wrapper"] if BACKEND != "jax" else ["class"])
@every_layer
def test_symbolic_batch_in_a_layer_around(case, form):
    inputs = [keras.Input(shape) for shape in case.input_shapes]
    given = inputs if len(inputs) > 1 else inputs[0]
    model = keras.Model(inputs, Around(conditioned(case, form))(given))
    assert model.output_shape[0] is None
    assert model(case.inputs(3)).shape[0] == 3


@pytest.mark.parametrize("units", [130, 512])
def test_dense_with_symbolic_inner_axes(units):
    """Where the form that scales the product is chosen, by an axis that has no size yet."""
    inputs = keras.Input((None, 256))
    model = keras.Model(inputs, Around(ConditionedDense(units))(inputs))
    assert model.output_shape == (None, None, units)
    x = normal(2, 5, 256)
    kernel = to_numpy(model.layers[1].inner.conditioned_kernel)
    assert relative(model(x), x @ kernel) <= 1e-5


def loss_in_a_vectorized_map(layer, x, kernel):
    """The sum of squares of outputs, sample by sample, as a function of the raw kernel."""
    variables = layer.trainable_variables
    position = next(i for i, v in enumerate(variables) if v is layer_kernel(layer))
    values = [v.value for v in variables]
    rest = [v.value for v in layer.non_trainable_variables]

    def call(sample):
        given = [*values[:position], kernel, *values[position + 1 :]]
        return layer.stateless_call(given, rest, sample[None])[0][0]

    return keras.ops.sum(keras.ops.square(keras.ops.vectorized_map(call, x)))


def layer_kernel(layer):
    (kernel,) = layer.raw_kernels.values()
    return kernel


@every_form
# On PyTorch, Keras' convolutions ask for a memory format that `torch.vmap` does not know.
@pytest.mark.parametrize(
    "name", ["Dense", "Dense, wide", "EinsumDense", *(["Conv2D"] if BACKEND != "torch" else [])]
)
def test_stateless_call_in_a_vectorized_map(name, form):
    case = CASES[name]
    layer = conditioned(case, form)
    inputs = case.inputs(3)
    outputs = layer(*inputs)
    x = keras.ops.convert_to_tensor(inputs[0])
    kernel = to_numpy(layer_kernel(layer))
    value = loss_in_a_vectorized_map(layer, x, keras.ops.convert_to_tensor(kernel))
    assert float(value) == pytest.approx(float(np.sum(to_numpy(outputs) ** 2)), rel=1e-5)
    mapped = gradient(lambda w: loss_in_a_vectorized_map(layer, x, w), kernel)

    def loss_at_once(w):
        values = [w if v is layer_kernel(layer) else v.value for v in layer.trainable_variables]
        rest = [v.value for v in layer.non_trainable_variables]
        return keras.ops.sum(keras.ops.square(layer.stateless_call(values, rest, x)[0]))

    assert relative(mapped, gradient(loss_at_once, kernel)) <= 1e-4


@every_form
def test_scan_over_steps(form):
    """A layer called in the body of a scan, as a recurrent network would."""
    case = CASES["Dense"]
    layer = conditioned(case, form)
    x = normal(5, 2, 3)
    expected = sum(to_numpy(layer(step)) for step in x)

    def body(total, step):
        return total + layer(step), None

    total, _ = keras.ops.scan(body, keras.ops.zeros((2, 4)), keras.ops.convert_to_tensor(x))
    assert relative(total, expected) <= 1e-5


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has `tf.function`")
class TestFunctionsCompiledByThemselves:
    """`tf.function` on a part of a layer keeps the tensors that it read when it was traced."""

    def layers(self):
        import tensorflow as tf

        class Compiled(layers.Dense):
            @tf.function
            def call(self, inputs):
                if tf.reduce_sum(inputs) > 1e6:  # Which `tf.function` converts.
                    inputs = 0.0 * inputs
                return tf.matmul(inputs, self.kernel)

        class WithCompiledPart(layers.Dense):
            @tf.function
            def product(self, inputs):
                return tf.matmul(inputs, self.kernel)

            def call(self, inputs):
                return self.product(inputs)

        return Compiled, WithCompiledPart

    def test_compiled_call_reads_the_kernel_of_today(self):
        layer = Conditioned(self.layers()[0](2, use_bias=False))
        x = np.eye(3, dtype="float32")
        layer(x)
        layer.layer.kernel.assign([[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
        assert np.allclose(layer(x), [[1, 0], [0, 1], [0, 0]], atol=1e-6)

    @pytest.mark.parametrize("eager", [True, False])
    def test_compiled_call_trains_as_any_other(self, eager):
        x, weights = normal(8, 3), []
        for cls in (layers.Dense, self.layers()[0]):
            model = keras.Sequential([keras.Input((3,)), Conditioned(cls(2, use_bias=False))])
            model.layers[0].layer.kernel.assign(normal(3, 2))
            model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=eager)
            model.fit(x, np.ones((8, 2)), epochs=3, verbose=0, shuffle=False)
            weights.append(to_numpy(model.weights[0]))
        assert relative(*weights) <= 1e-5

    def test_compiled_part_that_keeps_its_kernel_is_refused(self):
        layer = Conditioned(self.layers()[1](2, use_bias=False))
        x = np.eye(3, dtype="float32")
        layer(x)
        with pytest.raises(ValueError, match=r"did not read \['kernel'\].*`tf.function`"):
            layer(x)


@pytest.mark.skipif(BACKEND != "torch", reason="only PyTorch has `torch.export`")
@pytest.mark.parametrize("form", ["class"])
@every_layer
def test_torch_export_with_a_dynamic_batch(case, form):
    import torch

    if keras.__version__.startswith("3.12."):
        pytest.skip("under `torch.export`, Keras 3.12 fixes the batch size of plain layers too")
    layer = conditioned(case, form, gain="kernel_norm")
    model = case.model(layer)
    expected = {batch: to_numpy(model(case.inputs(batch))) for batch in (2, 5)}
    inputs = [keras.ops.convert_to_tensor(x) for x in case.inputs(2)]
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        model, (inputs,), dynamic_shapes=(([{0: batch}] * len(inputs),),), strict=False
    ).module()
    for size, outputs in expected.items():
        given = [keras.ops.convert_to_tensor(x) for x in case.inputs(size)]
        assert relative(program(given), outputs) <= 1e-4


@pytest.mark.skipif(BACKEND != "torch", reason="only PyTorch has `torch.compile`")
@pytest.mark.parametrize(("name", "form"), [("Dense, wide", "class"), ("Conv2D", "wrapper")])
def test_torch_compile_with_dynamic_shapes(name, form):
    """Traced, and no code generated: of one layer, that takes some 20 seconds."""
    import torch

    torch.compiler.reset()
    case = CASES[name]
    layer = conditioned(case, form, gain="kernel_norm")
    layer(*case.inputs(3))
    kernel = next(iter(layer.raw_kernels.values()))
    compiled = torch.compile(layer, dynamic=True, backend="eager")
    for batch in (2, 5):
        x, gradients = case.inputs(batch), []
        for call in (layer, compiled):
            kernel.value.grad = None
            outputs = call(*x)
            (outputs**2).sum().backward()
            gradients.append((outputs, kernel.value.grad))
        for plain, later in zip(*gradients, strict=True):
            assert relative(later, plain) <= 1e-5


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX has `jax.jit` and `jax.vmap`")
@pytest.mark.parametrize("form", ["class"])  # The wrapper's map is tested above.
@every_layer
def test_jit_and_vmap_around_a_stateless_call(case, form):
    import jax

    layer = conditioned(case, form, gain="kernel_norm")
    x = case.inputs(3)
    expected = layer(*x)
    rest = [variable.value for variable in layer.non_trainable_variables]

    @jax.jit
    def outputs(values):
        def of_sample(*sample):
            return layer.stateless_call(values, rest, *(part[None] for part in sample))[0][0]

        return jax.vmap(of_sample)(*x)

    values = [variable.value for variable in layer.trainable_variables]
    assert relative(outputs(values), expected) <= 1e-5
    # With other weights than those that the program was compiled with.
    assert relative(outputs([0.5 * v for v in values]), expected) > 0.0
