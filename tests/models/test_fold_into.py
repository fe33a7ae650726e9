"""Folding into a plain model that is given, `fold_model(model, into=plain)`."""

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned, ConditionedDense, condition_model, fold_model
from tests.helpers import normal, to_numpy
from tests.models.test_condition_model import IMAGES, moved, small

layers = keras.layers


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


class Graph(keras.Model):
    """A functional model of a class of its own, which lists its attributes in another order."""

    def __init__(self):
        inputs, first, second = keras.Input((4,)), layers.Dense(4), layers.Dense(4)
        outputs = layers.Dense(2)(second(first(inputs)))
        self.hidden = [second, first]
        super().__init__(inputs, outputs)


def test_layers_of_graphs_correspond_in_the_order_of_the_graph():
    model, into, x = Graph(), Graph(), normal(3, 4)
    conditioned = condition_model(model, layers=keras.layers.Dense)
    expected = to_numpy(conditioned(x))
    folded = fold_model(conditioned, into=into)
    assert type(folded) is Graph
    np.testing.assert_allclose(to_numpy(folded(x)), expected, rtol=1e-5, atol=1e-6)


def test_models_inside_graphs_are_frozen_as_before():
    def nested():
        inner = keras.Sequential([keras.Input((4,)), layers.Dense(4)], name="inner")
        return keras.Sequential([keras.Input((4,)), inner, layers.Dense(2)])

    model, into = nested(), nested()
    model.get_layer("inner").trainable = False
    fold_model(condition_model(model, layers=layers.Dense), into=into)
    assert not into.get_layer("inner").trainable
    assert not into.get_layer("inner").layers[0].trainable
    assert into.layers[-1].trainable


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


def test_models_with_a_layer_less_are_not_folded_into():
    class Block(keras.Model):
        def __init__(self, kind, has_activation):
            super().__init__()
            self.hidden = kind(3)
            self.rectified = layers.ReLU() if has_activation else None

        def call(self, inputs):
            hidden = self.hidden(inputs)
            return self.rectified(hidden) if self.rectified else hidden

    x = normal(2, 3)
    model, plain = Block(ConditionedDense, True), Block(layers.Dense, False)
    model(x), plain(x)
    with pytest.raises(ValueError, match=r"layer 're_lu\w*'.*no other layer"):
        fold_model(model, into=plain)


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
