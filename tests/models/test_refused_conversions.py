"""What `condition_model` refuses, and that a model is then unchanged."""

import keras
import pytest

import keras_wcond
from keras_wcond import condition_model
from tests.models.small_models import require_unchanged, state

layers = keras.layers


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.dense = layers.Dense(4)

    def call(self, inputs):
        return self.dense(inputs)


class WithGraphAndCall(keras.Model):
    def call(self, inputs, training=None, mask=None):
        return 2.0 * super().call(inputs)


def with_graph_and_call():
    inputs = keras.Input((3,))
    return WithGraphAndCall(inputs, layers.Dense(2)(layers.Dense(4)(inputs)), name="mine")


class WithoutConfig(layers.Dense):
    def __init__(self, number, **kwargs):
        super().__init__(number)

    def get_config(self):
        return {}


class Forgetful(layers.Dense):
    def __init__(self, units=3, **kwargs):
        super().__init__(units)

    def get_config(self):
        return {}


def sequential(*hidden):
    return keras.Sequential([keras.Input((3,)), layers.Dense(4, name="first"), *hidden])


BAD = {
    "no model": (
        lambda: condition_model(layers.Dense(4)),
        TypeError,
        r"Expected a Keras model. Received: model=<Dense.*`Conditioned\(layer\)`",
    ),
    "a subclassed model": (
        lambda: condition_model(Subclassed()),
        ValueError,
        r"functional or Sequential model.*model='mine' of type Subclassed.*`Conditioned\(layer\)`",
    ),
    "a functional model with another call": (
        lambda: condition_model(with_graph_and_call()),
        ValueError,
        r"functional or Sequential model.*model='mine' of type WithGraphAndCall.*of its own",
    ),
    "an unbuilt model": (
        lambda: condition_model(keras.Sequential([layers.Dense(4)], name="mine")),
        ValueError,
        r"Expected a built model.*Received: model='mine'",
    ),
    "no conditioner": (
        lambda: condition_model(sequential(), None),
        ValueError,
        r"Expected `condition_model` to be given a conditioner",
    ),
    "nothing to condition": (
        lambda: condition_model(sequential()),
        ValueError,
        r"(?s)with a kernel to condition.*of whose layers none was chosen.*makes an output",
    ),
    "a name that matches nothing": (
        lambda: condition_model(sequential(), layers="second"),
        ValueError,
        r"a layer with a kernel. Received: layers='second', which matches none of \['first'\]",
    ),
    "the name of a class": (
        lambda: condition_model(sequential(), layers="Conv2D"),
        ValueError,
        r"layers='Conv2D', which matches none of .* class: layers=keras.layers.Conv2D\.",
    ),
    "a class that matches nothing": (
        lambda: condition_model(sequential(), layers=layers.Conv2D),
        ValueError,
        r"match a layer with a kernel. Received: layers=<class .*Conv2D'>, which matches none",
    ),
    "a layer without a kernel": (
        lambda: condition_model(sequential(layers.BatchNormalization(name="norm")), layers="norm"),
        ValueError,
        r"match a layer with a kernel. Received: layers='norm', which matches none of \['first'\]",
    ),
    "no criterion": (
        lambda: condition_model(sequential(), layers=3),
        TypeError,
        r"Expected `layers` to be None, a layer class.*Received: 3 \(of type int\)",
    ),
    "conditioned twice": (
        lambda: condition_model(condition_model(sequential(), layers="first"), layers="first"),
        ValueError,
        r"not conditioned yet. Received: layers='first', which matches \['kernel'\]",
    ),
    "a wrong gain": (
        lambda: condition_model(sequential(layers.Dense(4)), gain="large"),
        ValueError,
        r"Expected `gain` to be a positive number",
    ),
}


@pytest.mark.parametrize(("use", "error", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_converted_is_refused(use, error, message):
    with pytest.raises(error, match=message):
        use()


def test_layers_shared_with_the_inside_of_another_are_refused():
    shared = layers.Dense(4, name="shared")
    frames, vectors = keras.Input((3, 4)), keras.Input((4,))
    around = layers.TimeDistributed(shared, name="around")
    outputs = [layers.Dense(2)(around(frames)), layers.Dense(2)(shared(vectors))]
    model = keras.Model([frames, vectors], outputs)
    before = state(model)
    message = r"hold no layer in common.*'around' and 'shared' both hold 'shared'"
    with pytest.raises(ValueError, match=message):
        condition_model(model)
    with pytest.raises(ValueError, match=message):
        keras_wcond.fold_model(model)
    require_unchanged(model, before)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (WithoutConfig(4, name="mine"), r"made again from their config. Received: .*WithoutConfig"),
        (Forgetful(4, name="mine"), r"copies have the same weights. Received: .*Forgetful"),
    ],
    ids=["no config", "another config"],
)
def test_a_model_is_unchanged_when_its_conversion_fails_halfway(layer, message):
    model = sequential(layer, layers.Dense(2))
    before = state(model)
    with pytest.raises(ValueError, match=message):
        condition_model(model, layers="first")
    require_unchanged(model, before)
