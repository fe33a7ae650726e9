"""`fold_model`: the plain model that computes the same, at the plain model's cost."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned, ConditionedDense, condition_model, fold_model
from tests.helpers import normal, operations, to_numpy
from tests.models.test_condition_model import IMAGES, moved, require_unchanged, small, state

layers = keras.layers


@pytest.mark.parametrize(
    ("gain", "trainable_gain"),
    [("initial_norm", None), ("kernel_norm", "scalar"), (2.0, "per_unit")],
)
def test_folded_model_is_plain_and_computes_the_same(gain, trainable_gain):
    model = small()
    conditioned = moved(condition_model(model, gain=gain, trainable_gain=trainable_gain))
    before = state(conditioned)
    folded = fold_model(conditioned)
    require_unchanged(conditioned, before)
    assert "keras_wcond" not in folded.to_json()
    assert [type(layer) for layer in folded.layers] == [type(layer) for layer in model.layers]
    assert [layer.name for layer in folded.layers] == [layer.name for layer in model.layers]
    assert folded.count_params() == model.count_params()
    assert not folded.compiled
    for ours, theirs in zip(folded(IMAGES), conditioned(IMAGES), strict=True):
        np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-5, atol=1e-6)


def test_plain_model_folds_into_a_copy():
    model = small()
    folded = fold_model(model)
    for ours, theirs in zip(folded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_trainability_is_kept():
    conditioned = condition_model(small())
    conditioned.get_layer("shared").trainable = False
    conditioned.get_layer("block").layer.first.trainable = False
    folded = fold_model(conditioned)
    assert not folded.get_layer("shared").trainable
    assert not folded.get_layer("block").first.kernel.trainable
    assert folded.get_layer("block").second.kernel.trainable


def test_layers_of_classes_that_are_not_registered_fold():
    class Unregistered(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(4)

        def build(self, input_shape):
            self.dense.build(input_shape)

        def call(self, inputs):
            return self.dense(inputs)

    model = keras.Sequential([keras.Input((3,)), Unregistered(), layers.Dense(2)])
    conditioned = condition_model(model)
    folded = fold_model(conditioned)
    assert type(folded.layers[0]) is Unregistered
    x = normal(2, 3)
    np.testing.assert_allclose(to_numpy(folded(x)), to_numpy(conditioned(x)), rtol=1e-5)


def test_functions_that_are_not_registered_fold():
    def gaussian(x):
        return keras.ops.exp(-keras.ops.square(x))

    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, activation=gaussian),
            layers.Dense(4, activation=lambda x: keras.ops.sin(30.0 * x)),
            layers.Dense(2),
        ]
    )
    conditioned = condition_model(model, gain="auto")
    folded = fold_model(conditioned)
    assert folded.layers[0].activation is gaussian
    x = normal(2, 3)
    np.testing.assert_allclose(to_numpy(folded(x)), to_numpy(conditioned(x)), rtol=1e-5)


def test_training_the_folded_model_leaves_the_conditioned_one():
    """On JAX, training gives away the memory of the arrays it replaces."""
    conditioned = condition_model(small())
    expected = [to_numpy(output) for output in conditioned(IMAGES)]
    folded = fold_model(conditioned)
    folded.compile("sgd", ["mse", "mse"])
    folded.fit(IMAGES, [np.zeros((4, 3)), np.ones((4, 1))], verbose=0)
    for ours, theirs in zip(conditioned(IMAGES), expected, strict=True):
        np.testing.assert_array_equal(to_numpy(ours), theirs)


def test_lora_is_merged():
    inputs = keras.Input((5, 4))
    attention = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(4, name="dense")(attention)))
    conditioned = condition_model(model)
    adapted = [conditioned.get_layer("dense"), conditioned.get_layer("attention").query_dense]
    for layer in adapted:
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(normal(*layer.lora_kernel_b.shape))
    folded = fold_model(conditioned)
    assert folded.count_params() == model.count_params()
    assert folded.get_layer("attention").query_dense.kernel.trainable
    x = normal(2, 5, 4)
    np.testing.assert_allclose(to_numpy(folded(x)), to_numpy(conditioned(x)), rtol=1e-5, atol=1e-6)


class Net(keras.Model):
    """A model with a `call` of its own, conditioned or plain by an argument."""

    def __init__(self, kernel_conditioner="row_equilibration", **arguments):
        super().__init__()
        arguments = {"kernel_conditioner": kernel_conditioner, **arguments}
        self.norm = layers.Normalization(name="norm")
        self.h1 = ConditionedDense(8, "relu", name="h1", **arguments)
        self.recurrent = Conditioned(layers.LSTM(5, name="lstm"), **arguments)
        self.blocks = [ConditionedDense(5, "tanh", **arguments) for _ in range(2)]
        self.dropout = layers.Dropout(0.1)
        self.out = layers.Dense(3)

    def call(self, inputs):
        x = self.recurrent(self.h1(self.norm(inputs)))
        for block in self.blocks:
            x = block(x) + x
        return self.out(self.dropout(x))


class PlainNet(keras.Model):
    """The same, written without `keras_wcond`."""

    def __init__(self):
        super().__init__()
        self.norm = layers.Normalization(name="norm")
        self.h1 = layers.Dense(8, "relu", name="h1")
        self.recurrent = layers.LSTM(5)
        self.blocks = [layers.Dense(5, "tanh") for _ in range(2)]
        self.dropout = layers.Dropout(0.1)
        self.out = layers.Dense(3)

    call = Net.call


def called(net, x):
    # First, since Keras' `Normalization` computes with what it derived when it was built, which in
    # a model's first call is a symbol on JAX and nothing on PyTorch.
    net.norm.adapt(x)
    net(x)
    return net


@pytest.mark.parametrize(
    "plain",
    [lambda: Net(kernel_conditioner=None), PlainNet],
    ids=["by argument", "of plain layers"],
)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"kernel_conditioner": "newton_orthogonalization", "trainable_gain": "per_unit"},
        {"gain": "initial_norm", "trainable_gain": "scalar"},
    ],
    ids=str,
)
def test_models_with_a_call_of_their_own_fold_into_a_plain_one(plain, arguments, tmp_path):
    x = normal(16, 4, 3)
    net, into = called(Net(**arguments), 3.0 + 2.0 * x), called(plain(), x)
    net.compile("adam", "mse")
    net.fit(x, normal(16, 3), epochs=2, verbose=0)
    net.h1.trainable = False
    expected, weights = to_numpy(net(x)), net.get_weights()
    assert fold_model(net, into=into) is into
    np.testing.assert_allclose(to_numpy(into(x)), expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(net.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not into.h1.trainable
    into.save_weights(tmp_path / "plain.weights.h5")
    loaded = called(plain(), x)
    loaded.load_weights(tmp_path / "plain.weights.h5")
    np.testing.assert_allclose(to_numpy(loaded(x)), expected, rtol=1e-5, atol=1e-6)


def test_functional_models_fold_into_a_given_one_too():
    """A model of a class of its own, as KerasHub's, keeps the class so."""
    model = moved(small())
    conditioned = moved(condition_model(model))
    folded = fold_model(conditioned, into=model)
    assert folded is model
    for ours, theirs in zip(folded(IMAGES), conditioned(IMAGES), strict=True):
        np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-5, atol=1e-6)


def test_lora_is_merged_into_a_given_model():
    x = normal(4, 4, 3)
    net, into = called(Net(), x), called(PlainNet(), x)
    net.h1.enable_lora(2)
    net.h1.lora_kernel_b.assign(normal(*net.h1.lora_kernel_b.shape))
    fold_model(net, into=into)
    np.testing.assert_allclose(to_numpy(into(x)), to_numpy(net(x)), rtol=1e-5, atol=1e-6)


def test_models_to_fold_into_are_checked():
    x = normal(4, 4, 3)
    net = called(Net(trainable_gain="scalar"), x)
    with pytest.raises(ValueError, match=r"own\. .*`fold_model\(model, into=plain_model\)`"):
        fold_model(net)
    with pytest.raises(
        ValueError, match=r"built model, which has weights. Received: into='plain_net"
    ):
        fold_model(net, into=PlainNet())
    with pytest.raises(TypeError, match=r"Expected a Keras model. Received: into=3"):
        fold_model(net, into=3)
    other = called(Net(), x)
    with pytest.raises(ValueError, match=r"`into` to be a model without conditioning.*\['h1', "):
        fold_model(net, into=other)
    wider = PlainNet()
    wider.h1 = layers.Dense(9, name="h1")
    called(wider, x)
    before = wider.get_weights()
    with pytest.raises(ValueError, match=r"same order. .*kernel \(3, 8\).*kernel \(3, 9\)"):
        fold_model(net, into=wider)
    for ours, theirs in zip(wider.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("names", "activation", "message"),
    [
        (
            ("b", "a"),
            "relu",
            "the layer in `[ab]`, and into='two.*' with that in `[ab]` in its place",
        ),
        (("a", "b"), "tanh", "activation='relu' in layer .*activation='tanh' in"),
    ],
    ids=["another order", "another activation"],
)
def test_models_of_other_layers_are_not_folded_into(names, activation, message):
    class Two(keras.Model):
        def __init__(self, kind, names, activation):
            super().__init__()
            for name in names:
                setattr(self, name, kind(3, activation=activation))

        def call(self, inputs):
            return self.b(self.a(inputs))

    x = normal(2, 3)
    model, plain = Two(ConditionedDense, "ab", "relu"), Two(layers.Dense, names, activation)
    model(x), plain(x)
    before = plain.get_weights()
    with pytest.raises(ValueError, match=message):
        fold_model(model, into=plain)
    for ours, theirs in zip(plain.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_layers_without_weights_have_to_correspond_too():
    """By which flags and derived state would go to other layers."""
    x = normal(8, 4)
    norm = layers.Normalization()
    norm.adapt(x)
    hidden = [ConditionedDense(4), layers.ReLU()]
    model = keras.Sequential([keras.Input((4,)), *hidden, norm, layers.Dense(2)])
    plain = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, "relu"), layers.Normalization(), layers.Dense(2)]
    )
    with pytest.raises(ValueError, match=r"same\s+arguments\. Received: .*activation='linear'"):
        fold_model(model, into=plain)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Conditioned, lambda d: Conditioned(d, gain=3.0)),
        (Conditioned, lambda d: d),
        (Conditioned, lambda d: layers.Pipeline([d])),
        (lambda d: Conditioned(layers.Pipeline([d])), lambda d: d),
    ],
    ids=["conditioned twice", "plain as well", "plain inside another", "conditioned inside one"],
)
def test_one_kernel_as_two_matrices_is_refused(first, second):
    class Net(keras.Model):
        def __init__(self, first, second):
            super().__init__()
            self.first, self.second = first, second

        def call(self, inputs):
            return self.second(self.first(inputs))

    shared, plain = layers.Dense(3, name="shared"), layers.Dense(3)
    x, model, into = normal(2, 3), Net(first(shared), second(shared)), Net(plain, plain)
    model(x), into(x)
    with pytest.raises(ValueError, match=r"nowhere else.*'shared' is\s+conditioned by"):
        fold_model(model, into=into)


def test_call_of_a_users_own_is_not_lost():
    class Doubled(ConditionedDense):
        def call(self, inputs):
            return 2.0 * super().call(inputs)

    model = keras.Sequential([keras.Input((3,)), Doubled(3)])
    plain = keras.Sequential([keras.Input((3,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"with the `call` of .*Doubled, and"):
        fold_model(model, into=plain)


def test_folded_model_quantizes():
    model = keras.Sequential(
        [keras.Input((16,)), layers.Dense(32, activation="relu"), layers.Dense(4)]
    )
    folded = fold_model(condition_model(model))
    inputs = normal(3, 16)
    exact = to_numpy(folded(inputs))
    folded.quantize("int8")
    assert [layer.quantization_mode for layer in folded.layers] == ["int8", "int8"]
    assert 0.0 < np.max(np.abs(to_numpy(folded(inputs)) - exact)) < 0.1


def test_folded_file_loads_where_the_package_is_not_installed(tmp_path):
    folded = fold_model(
        condition_model(
            keras.Sequential(
                [keras.Input((6, 4)), layers.LSTM(5), layers.Dense(8), layers.Dense(2)]
            )
        )
    )
    inputs = normal(3, 6, 4)
    folded.save(tmp_path / "folded.keras")
    np.save(tmp_path / "inputs.npy", inputs)
    code = (
        "import sys; sys.modules['keras_wcond'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.models.load_model('folded.keras')\n"
        "np.save('outputs.npy', model.predict(np.load('inputs.npy'), verbose=0))\n"
    )
    # A GPU of its own process would multiply in TF32.
    on_cpu = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=tmp_path, env=on_cpu, check=True, capture_output=True)
    outputs = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(outputs, to_numpy(folded(inputs)), rtol=1e-5, atol=1e-6)


def operations_of(model):
    """Those of an inference, with the model's weights as arguments where that takes some."""
    variables = [
        [variable.value for variable in each]
        for each in (model.trainable_variables, model.non_trainable_variables)
    ]
    return operations(lambda x: model.stateless_call(*variables, x, training=False)[0], IMAGES)


def test_folded_model_has_the_operations_of_the_plain_one():
    model = small()
    conditioned = condition_model(model)
    plain = operations_of(model)
    assert len(plain) > 5
    assert operations_of(fold_model(conditioned)) == plain
    assert len(operations_of(conditioned)) > len(plain) + 5


@keras.saving.register_keras_serializable("tests")
class MakesItsOwn(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = ConditionedDense(4)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(inputs)


@keras.saving.register_keras_serializable("tests")
class Doubled(ConditionedDense):
    def call(self, inputs, training=None):
        return 2.0 * super().call(inputs, training=training)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            MakesItsOwn(name="mine"),
            r"Received: layer.name='mine' of type MakesItsOwn, whose.*own: \['conditioned_dense",
        ),
        (Doubled(4, name="mine"), r"has a plain one to fold into. Received: layer.name='mine'"),
        (
            keras.Sequential([Doubled(4)], name="mine"),
            r"has a plain one to fold into. Received: layer.name='doubled.*Doubled, which",
        ),
        (
            Conditioned(keras.Sequential([Doubled(4)]), kernel_conditioner=None, name="mine"),
            r"Received: layer.name='mine' of type Conditioned, whose.*own: \['doubled",
        ),
        (
            Conditioned(MakesItsOwn(name="mine"), kernel_conditioner=None),
            r"holds conditioned layers of its own: \['conditioned_dense",
        ),
    ],
    ids=["made in its code", "another call", "in a model", "in a wrapper", "wrapped"],
)
def test_what_has_no_plain_layer_is_refused_and_left_as_it_is(layer, message):
    model = keras.Sequential([keras.Input((3,)), ConditionedDense(4), layer])
    before = state(model)
    with pytest.raises(ValueError, match=message):
        fold_model(model)
    require_unchanged(model, before)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"Expected a Keras model.*folded by its `fold\(\)`"):
        fold_model(ConditionedDense(4))
    with pytest.raises(ValueError, match=r"Expected a built model"):
        fold_model(keras.Sequential([ConditionedDense(4)]))
