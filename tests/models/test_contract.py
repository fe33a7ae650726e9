"""One contract of conversion and folding for whole models, whatever they are made of.

`fold_model(condition_model(m))` computes what `condition_model(m)` does, always; and both compute
what m does where the method keeps the function: row equilibration with a gain per unit.
"""

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned, condition_model, fold_model
from tests.helpers import normal, relative, to_numpy

layers = keras.layers
BACKEND = keras.backend.backend()


@keras.saving.register_keras_serializable("tests")
class Scale(layers.Layer):
    """Computes with a number that it derives when its weights are loaded, as layers may."""

    def build(self, input_shape):
        self.level = self.add_weight(name="level", shape=(), trainable=False)
        self.derived = 1.0

    def set(self, level):
        self.level.assign(level)
        self.derived = float(level) ** 2

    def load_own_variables(self, store):
        super().load_own_variables(store)
        self.derived = float(to_numpy(self.level)) ** 2

    def call(self, inputs):
        return inputs * self.derived


@keras.saving.register_keras_serializable("tests")
class BuiltWithMore(layers.Layer):
    """Keeps in its build config what its shapes do not say."""

    def build(self, input_shape, units=2):
        self.units = units
        self.dense = layers.Dense(units)
        self.dense.build(input_shape)

    def get_build_config(self):
        return {"input_shape": self._build_shapes_dict["input_shape"], "units": self.units}

    def build_from_config(self, config):
        self.build(config["input_shape"], config["units"])

    def call(self, inputs):
        return self.dense(inputs)


@keras.saving.register_keras_serializable("tests")
class NormalizingBlock(layers.Layer):
    """A layer around an adapted one and a kernel."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm, self.dense = layers.Normalization(), layers.Dense(4, activation="tanh")

    def build(self, input_shape):
        self.norm.build(input_shape)
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(self.norm(inputs))


def adapted(layer, shape):
    layer.adapt(normal(64, *shape, seed=3) * 5.0 + 3.0)
    return layer


def normalized():
    inputs = keras.Input((6,))
    hidden = adapted(layers.Normalization(), (6,))(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(5, "relu")(hidden)))


def normalized_inside():
    block = NormalizingBlock()
    block.build((None, 6))
    block.norm.adapt(normal(64, 6, seed=3) * 5.0 + 3.0)
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(2)(block(inputs)))


def normalized_wrapped():
    model = normalized_inside()
    block = model.layers[1]
    inputs = keras.Input((6,))
    wrapped = Conditioned(block, gain="initial_norm", trainable_gain="per_unit")
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(4)(wrapped(inputs))))


def discretized():
    inputs = keras.Input((6,))
    layer = layers.Discretization(num_bins=4)
    # What `adapt` does, which asks for TensorFlow on every backend.
    layer.reset_state()
    layer.update_state(normal(256, 6, seed=3))
    layer.finalize_state()
    bins = layers.Rescaling(0.5)(layer(inputs))
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(5)(bins)))


def derived():
    inputs = keras.Input((6,))
    scale = Scale()
    model = keras.Model(inputs, layers.Dense(2)(scale(layers.Dense(5, "tanh")(inputs))))
    scale.set(3.0)
    return model


def built_with_more():
    layer = BuiltWithMore()
    layer.build((None, 6), units=7)
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(2)(layer(inputs)))


def shared():
    left, right = keras.Input((6,)), keras.Input((6,))
    layer = layers.Dense(5, "tanh")
    twice = keras.Sequential([keras.Input((5,)), layers.Dense(5, "relu")])
    hidden = [twice(twice(layer(x))) for x in (left, right)]
    return keras.Model([left, right], layers.Dense(2)(layers.concatenate(hidden)))


def dictionaries():
    inputs = {"a": keras.Input((6,), name="a"), "b": keras.Input((4,), name="b")}
    a, b = (layers.Dense(5, "relu")(x) for x in inputs.values())
    outputs = {
        "sum": layers.Dense(2)(a + b),
        "product": layers.Dense(3)(keras.ops.sin(a * b) - 1.0),
    }
    return keras.Model(inputs, outputs)


def nested():
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5), adapted(layers.Normalization(), (5,))]
    )
    inputs = keras.Input((6,))
    around = keras.Model(inputs, layers.Dense(4, "relu")(inner(inputs)))
    outer = keras.Input((6,))
    return keras.Model(outer, layers.Dense(2)(around(outer)))


def with_lambda():
    inputs = keras.Input((6,))
    hidden = layers.Lambda(lambda x: x * 2.0)(layers.Dense(5, "relu")(inputs))
    return keras.Model(inputs, layers.Dense(2)(layers.GaussianNoise(0.1, seed=1)(hidden)))


def random():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.RandomFlip(seed=2),
            layers.Rescaling(0.5, 0.1),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.3, seed=4),
            layers.Dense(2),
        ]
    )


MODELS = (
    normalized,
    normalized_inside,
    normalized_wrapped,
    discretized,
    derived,
    built_with_more,
    shared,
    dictionaries,
    nested,
    with_lambda,
    random,
)  # fmt: skip


def inputs_of(model):
    """Arrays for a model's inputs, in their structure."""
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    seeds = iter(range(100))
    return keras.tree.map_structure(
        lambda tensor: normal(5, *tensor.shape[1:], seed=next(seeds)), structure
    )


def require_same_outputs(model, other):
    x = inputs_of(model)
    expected, outputs = (keras.tree.flatten(each(x, training=False)) for each in (model, other))
    assert len(expected) == len(outputs)
    for one, another in zip(expected, outputs, strict=True):
        assert relative(another, one) <= 1e-5


every_model = pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)


@every_model
def test_folded_model_computes_what_the_conditioned_one_does(make):
    conditioned = condition_model(make(), "newton_orthogonalization", gain=1.0)
    require_same_outputs(conditioned, fold_model(conditioned))


@every_model
def test_conversion_keeps_the_function_where_the_method_does(make):
    model = make()
    conditioned = condition_model(model, trainable_gain="per_unit")
    require_same_outputs(model, conditioned)
    require_same_outputs(model, fold_model(conditioned))


@every_model
def test_conversion_of_a_model_from_a_file(make, tmp_path):
    conditioned = condition_model(make(), trainable_gain="per_unit")
    conditioned.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=False)
    require_same_outputs(conditioned, loaded)
    require_same_outputs(conditioned, fold_model(loaded))


def lookup():
    inputs = keras.Input((1,), dtype="string")
    layer = layers.StringLookup(vocabulary=["a", "b", "c"])
    hidden = layers.Flatten()(layers.Embedding(5, 4)(layer(inputs)))
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(3)(hidden)))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras' lookup layers need TensorFlow")
def test_vocabularies_go_along():
    model = lookup()
    x = keras.ops.convert_to_tensor([["a"], ["c"], ["z"]], dtype="string")
    conditioned = condition_model(model, trainable_gain="per_unit")
    for other in (conditioned, fold_model(conditioned)):
        assert relative(other(x), model(x)) <= 1e-5


def test_random_layers_go_on_from_where_they_were():
    model = random()
    x = inputs_of(model)
    model(x, training=True)
    conditioned = condition_model(model, trainable_gain="per_unit")
    folded = fold_model(conditioned)
    expected = to_numpy(model(x, training=True))
    for other in (conditioned, folded):
        assert relative(other(x, training=True), expected) <= 1e-4


def flags(model):
    """Whether each layer is trainable, the models themselves and all that they hold included."""
    held = model.layers if isinstance(model, keras.Model) else []
    return [model.trainable, *(flags(layer) for layer in held)]


@pytest.mark.parametrize("frozen", ["all", "around", "inner", "thawed inside"])
def test_freezing_goes_along(frozen):
    model = nested()
    around = model.layers[1]
    inner = next(layer for layer in around.layers if isinstance(layer, keras.Sequential))
    part = {"all": model, "around": around, "inner": inner, "thawed inside": around}[frozen]
    part.trainable = False
    if frozen == "thawed inside":
        inner.layers[0].trainable = True
    conditioned, others = condition_model(model), []
    for other in (conditioned, fold_model(conditioned)):
        assert flags(other) == flags(model)
        paths = [[len(w.shape) for w in each.trainable_weights] for each in (model, other)]
        assert paths[0] == paths[1]
        others.append(other)
    # Not all layers: on TensorFlow, Keras itself does not thaw the models in a functional one.
    for each in (model, *others):
        each.trainable = True
    counts = {len(each.trainable_weights) for each in (model, *others)}
    assert len(counts) == 1


@pytest.mark.parametrize("method", ["row_equilibration", "newton_orthogonalization"])
def test_transfer_learning(method):
    """Convert a frozen base, train the head, thaw, train all, fold: kernels move when they may."""
    base = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, "tanh"), layers.Dense(4, "tanh")], name="base"
    )
    base.trainable = False
    inputs = keras.Input((6,))
    model = condition_model(
        keras.Model(inputs, layers.Dense(2)(base(inputs))), method, layers="base/*"
    )
    base, head = model.get_layer("base"), model.layers[-1]
    x, y = normal(16, 6), normal(16, 2, seed=1)

    def train():
        before = [
            to_numpy(w).copy() for w in (base.layers[0].kernel, base.layers[1].kernel, head.kernel)
        ]
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(x, y, epochs=2, verbose=0)
        after = [base.layers[0].kernel, base.layers[1].kernel, head.kernel]
        return [bool(np.any(to_numpy(w) != b)) for w, b in zip(after, before, strict=True)]

    assert base.trainable is False
    assert train() == [False, False, True]
    base.trainable = True
    assert train() == [True, True, True]
    folded = fold_model(model)
    require_same_outputs(model, folded)
    assert folded.get_layer("base").trainable
