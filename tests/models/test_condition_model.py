"""`condition_model`: what is converted, what is left, and that the given model is untouched."""

import re

import keras
import numpy as np
import pytest

import keras_wcond
from keras_wcond import Conditioned, ConditionedConv2D, ConditionedDense, condition_model
from tests.helpers import normal, to_numpy
from tests.layers.cases import every_layer
from tests.layers.test_conditioned import Block
from tests.reference import equilibrated

layers = keras.layers
IMAGES = normal(4, 8, 8, 2)


def small():
    """One of everything, with a layer that is shared, a model in the model, and two outputs."""
    inputs = keras.Input((8, 8, 2))
    features = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
        ],
        name="features",
    )
    x = features(inputs)
    x = x + layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Reshape((36, 4))(x)
    shared = layers.Dense(4, name="shared")
    x = shared(shared(x))
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True, name="lstm"), name="recurrent")(
        x
    )
    x = layers.Dropout(0.1)(x)
    x = Block(name="block")(x)
    x = layers.GlobalAveragePooling1D()(x)
    logits = layers.Dense(3, name="logits")(x)
    return keras.Model(inputs, [layers.Softmax()(logits), layers.Dense(1, name="value")(x)])


def moved(model):
    for seed, variable in enumerate(model.weights):
        variable.assign(variable + 0.1 * np.abs(normal(*variable.shape, seed=seed)))
    return model


def state(model):
    """Everything about a model that a conversion might have changed."""
    operations = getattr(model, "operations", model.layers)
    nodes = [len(x._inbound_nodes) + len(x._outbound_nodes) for x in operations]
    values = [to_numpy(variable).copy() for variable in model.variables]
    trainable = [variable.trainable for variable in model.variables]
    return model.get_config(), nodes, values, trainable, [id(layer) for layer in model.layers]


def require_unchanged(model, before):
    after = state(model)
    assert after[:2] == before[:2]
    assert after[3:] == before[3:]
    for value, original in zip(after[2], before[2], strict=True):
        np.testing.assert_array_equal(value, original)


def plain_weights(layer):
    gains = {id(gain) for gain in getattr(layer, "gain_weights", [])}
    return [to_numpy(weight) for weight in layer.weights if id(weight) not in gains]


def test_every_layer_of_a_model_is_converted_with_its_weights():
    model = moved(small())
    before = state(model)
    conditioned = condition_model(model)
    require_unchanged(model, before)
    kinds = {
        "depthwise": layers.DepthwiseConv2D,
        "shared": ConditionedDense,
        "attention": keras_wcond.ConditionedMultiHeadAttention,
        "recurrent": Conditioned,
        "block": Conditioned,
        "logits": layers.Dense,
        "value": layers.Dense,
    }
    for name, kind in kinds.items():
        assert type(conditioned.get_layer(name)) is kind
    assert type(conditioned.get_layer("features").get_layer("stem")) is ConditionedConv2D
    assert type(conditioned.get_layer("features").get_layer("norm")) is layers.BatchNormalization
    pairs = zip(model.layers, conditioned.layers, strict=True)
    for original, layer in pairs:
        assert layer is not original
        assert layer.name == original.name
        if original.name == "features":
            continue
        for ours, theirs in zip(plain_weights(layer), original.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert not conditioned.compiled


def test_converted_model_starts_at_the_scale_it_had():
    model = moved(small())
    conditioned = condition_model(model)
    for name in ("shared", "attention", "recurrent"):
        layer = conditioned.get_layer(name)
        raw = layer.raw_kernels
        for path, kernel in layer.conditioned_kernels.items():
            expected = np.linalg.norm(to_numpy(raw[path]))
            np.testing.assert_allclose(np.linalg.norm(to_numpy(kernel)), expected, rtol=1e-5)


def test_equilibrated_model_computes_what_it_computed():
    """Where rows have one norm already, the default gain makes the conversion exact."""
    model = small()
    for layer in model.layers:
        if layer.name in ("shared", "logits"):
            layer.kernel.assign(0.7 * equilibrated(to_numpy(layer.kernel)))
    conditioned = condition_model(model, layers="shared")
    for ours, theirs in zip(conditioned(IMAGES), model(IMAGES), strict=True):
        np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-4, atol=1e-6)


def test_arguments_reach_every_layer():
    conditioned = condition_model(small(), gain="kernel_norm", trainable_gain="scalar")
    for name in ("shared", "attention", "block"):
        layer = conditioned.get_layer(name)
        assert layer.kernel_conditioner == keras_wcond.conditioners.RowEquilibration()
        assert (layer.gain, layer.trainable_gain) == ("kernel_norm", "scalar")
        assert all(gain.trainable for gain in layer.gain_weights)


def test_shared_layers_stay_shared_across_nested_models():
    shared = layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared, layers.ReLU()], name="inner")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Flatten()(inner(shared(inner(inputs)))))
    conditioned = condition_model(model, layers=layers.Dense)
    assert conditioned.get_layer("shared") is conditioned.get_layer("inner").get_layer("shared")
    assert len(conditioned.trainable_weights) == len(model.trainable_weights) == 2


def test_training_changes_every_conditioned_kernel_and_the_file_is_read_again(tmp_path):
    conditioned = condition_model(small())
    kernels = [
        kernel
        for layer in [*conditioned.layers, *conditioned.get_layer("features").layers]
        for kernel in getattr(layer, "raw_kernels", {}).values()
    ]
    assert len(kernels) == 1 + 1 + 4 + 4 + 2
    before = [to_numpy(kernel).copy() for kernel in kernels]
    conditioned.compile("adam", ["mse", "mse"])
    conditioned.fit(IMAGES, [np.zeros((4, 3)), np.ones((4, 1))], verbose=0)
    for kernel, value in zip(kernels, before, strict=True):
        assert np.any(to_numpy(kernel) != value), kernel.path
    conditioned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = conditioned.predict(IMAGES, verbose=0)
    for ours, theirs in zip(loaded.predict(IMAGES, verbose=0), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_training_one_model_leaves_the_other():
    """On JAX, training gives away the memory of the arrays it replaces."""
    model = small()
    expected = [to_numpy(output) for output in model(IMAGES)]
    conditioned = condition_model(model)
    conditioned.compile("sgd", ["mse", "mse"])
    conditioned.fit(IMAGES, [np.zeros((4, 3)), np.ones((4, 1))], verbose=0)
    for ours, theirs in zip(model(IMAGES), expected, strict=True):
        np.testing.assert_array_equal(to_numpy(ours), theirs)


@every_layer
def test_every_layer_with_a_class_of_its_own_becomes_one_of_that_class(case):
    plain = moved(case.model(case.plain(**case.arguments)))
    conditioned = condition_model(plain, layers=lambda layer: True)
    layer = next(layer for layer in conditioned.layers if layer.weights)
    assert type(layer) is case.conditioned
    assert len(layer.gain_weights) == len(case.axes)
    for ours, theirs in zip(plain_weights(layer), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def conditioned_names(model, chosen):
    """The names of the owners of the kernels that a choice of layers conditions."""
    conditioned = condition_model(model, layers=chosen)
    found = set()
    for layer in [*conditioned.layers, *conditioned.get_layer("features").layers]:
        for path in getattr(layer, "raw_kernels", {}):
            found.add(f"{layer.name}/{path.rpartition('/')[0]}".rstrip("/"))
    return found


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (layers.Conv2D, {"stem"}),
        ("shared", {"shared"}),
        ("features/*", {"stem"}),
        ("features", {"stem"}),
        ("*/query", {"attention/query"}),
        (["logits", layers.DepthwiseConv2D], {"logits", "depthwise"}),
        (lambda layer: layer.name.startswith("s"), {"stem", "shared"}),
        (
            keras.layers.LSTMCell,
            {"recurrent/forward_lstm/lstm_cell", "recurrent/backward_lstm/lstm_cell"},
        ),
    ],
    ids=[
        "a class",
        "a name",
        "a path",
        "a model",
        "an inner path",
        "a list",
        "a function",
        "cells",
    ],
)
def test_layers_are_chosen_by_class_name_and_function(chosen, names):
    assert conditioned_names(small(), chosen) == names


def test_part_of_a_layer_survives_saving(tmp_path):
    """The inner layers of a loaded `Block` have other names than those that were chosen."""
    model = small()
    chosen = model.get_layer("block").second.name
    conditioned = condition_model(model, layers=chosen)
    assert len(conditioned.get_layer("block").raw_kernels) == 1
    conditioned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    (kernel,) = loaded.get_layer("block").raw_kernels.values()
    assert kernel is loaded.get_layer("block").layer.second.kernel


def test_embeddings_are_left_unless_they_are_chosen():
    model = keras.Sequential(
        [keras.Input((5,)), layers.Embedding(9, 4, name="tokens"), layers.LSTM(3, name="lstm")]
    )
    assert type(condition_model(model).get_layer("tokens")) is layers.Embedding
    conditioned = condition_model(model, layers=[layers.Embedding, "lstm"])
    vectors = to_numpy(conditioned.get_layer("tokens").conditioned_kernels["embeddings"])
    norms = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(norms, norms[0], rtol=1e-5)


def test_depthwise_kernels_are_left_unless_they_are_chosen():
    kinds = {
        "depthwise": layers.DepthwiseConv2D(3, name="depthwise"),
        "separable": layers.SeparableConv2D(4, 3, name="separable"),
        "by_groups": layers.Conv2D(4, 3, groups=4, name="by_groups"),
        "in_groups": layers.Conv2D(4, 3, groups=2, name="in_groups"),
        "wrapped": layers.TimeDistributed(layers.DepthwiseConv1D(2), name="wrapped"),
    }
    model = keras.Sequential([keras.Input((12, 12, 2)), layers.Conv2D(4, 3), *kinds.values()])
    conditioned = condition_model(model)
    assert type(conditioned.get_layer("depthwise")) is layers.DepthwiseConv2D
    assert type(conditioned.get_layer("by_groups")) is layers.Conv2D
    assert type(conditioned.get_layer("wrapped")) is layers.TimeDistributed
    assert type(conditioned.get_layer("in_groups")) is ConditionedConv2D
    assert list(conditioned.get_layer("separable").raw_kernels) == ["pointwise_kernel"]
    images = normal(2, 12, 12, 2)
    np.testing.assert_allclose(
        to_numpy(keras_wcond.fold_model(conditioned)(images)),
        to_numpy(conditioned(images)),
        rtol=1e-4,
        atol=1e-6,
    )
    named = condition_model(model, layers=["depthwise", "separable", "by_groups"])
    assert type(named.get_layer("depthwise")) is keras_wcond.ConditionedDepthwiseConv2D
    assert type(named.get_layer("separable")) is keras_wcond.ConditionedSeparableConv2D
    assert type(named.get_layer("by_groups")) is ConditionedConv2D


def test_wrapper_leaves_depthwise_kernels_of_inner_layers():
    inner = keras.Sequential([layers.SeparableConv1D(4, 3), layers.Conv1D(2, 3)])
    wrapper = Conditioned(inner)
    wrapper.build((None, 9, 2))
    assert sorted(name.rpartition("/")[2] for name in wrapper.raw_kernels) == [
        "kernel",
        "pointwise_kernel",
    ]
    itself = Conditioned(layers.SeparableConv1D(4, 3))
    itself.build((None, 9, 2))
    assert list(itself.raw_kernels) == ["depthwise_kernel", "pointwise_kernel"]


def test_report_says_what_was_conditioned_what_was_left_and_why(capsys):
    model = small()
    condition_model(model, verbose=True)
    printed = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line for line in printed.splitlines() if "│" in line}
    assert "makes an output" in rows["logits"]
    assert "makes an output" in rows["value"]
    assert rows["attention"].split("│")[3:5] == [" 4       ", " 4           "]
    assert "features/stem" in rows
    assert "features/norm" not in rows
    assert [cell.strip() for cell in rows["depthwise"].split("│")[3:6]] == ["1", "-", "depthwise"]
    assert "Conditioned: 12 kernels of 5 layers. Without a kernel: 6 layers." in printed
    condition_model(model)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("method", ["row_equilibration", "newton_orthogonalization"])
def test_change_of_the_outputs_is_reported(method, capsys):
    model = moved(small())
    conditioned = condition_model(model, method, check_on=IMAGES)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("Fine-tune the model to recover. ")
    for line, before, after in zip(lines, model(IMAGES), conditioned(IMAGES), strict=False):
        before, after = to_numpy(before), to_numpy(after)
        change = np.linalg.norm(after - before) / np.linalg.norm(before)
        name, _, rest = line.removeprefix("Output change of ").partition(": ")
        number = float(rest.removeprefix("‖new - old‖ / ‖old‖ = ").rstrip(".").partition(",")[0])
        assert number == pytest.approx(change, rel=0.06)
        if before.shape[-1] > 1:
            moved_rows = np.mean(before.argmax(-1) != after.argmax(-1))
            assert f"the argmax differs in {moved_rows:.1%} of samples." in rest
        assert name in {"'softmax'", "'value'"} or name.startswith("'softmax_")


def test_outputs_that_are_kept_are_reported_without_advice(capsys):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, "tanh"), layers.Dense(3)])
    condition_model(model, trainable_gain="per_unit", check_on=normal(8, 6))
    (line,) = capsys.readouterr().out.splitlines()
    text = (
        r"Output change: ‖new - old‖ / ‖old‖ = (\S+), and the argmax differs in 0\.0% of samples\."
    )
    assert float(re.fullmatch(text, line)[1]) < 1e-6


def test_outputs_that_are_not_finite_are_counted(capsys):
    inputs = keras.Input((6,))
    outputs = [layers.Dense(3)(layers.Dense(5)(inputs)) for _ in range(2)]
    model = keras.Model(inputs, outputs)
    model.layers[1].kernel.assign(np.full((6, 5), np.nan))
    x = normal(8, 6)
    condition_model(model, check_on=x)
    first, second, advice = capsys.readouterr().out.splitlines()
    assert first.endswith("not finite in 8 of 8 samples.")
    assert "‖new - old‖" in second
    assert advice.startswith("Fine-tune")
    x[:2] = np.inf
    condition_model(model, trainable_gain="per_unit", check_on=x)
    assert "0.0% of samples; not finite in 2 of 8 samples." in capsys.readouterr().out


def test_change_of_outputs_is_measured_without_updates():
    """Of a stateful layer, whose state is carried over."""
    inputs = keras.Input(batch_shape=(2, 3, 4))
    model = keras.Model(inputs, layers.Dense(2)(layers.LSTM(4, stateful=True, name="lstm")(inputs)))
    x = normal(2, 3, 4)
    model(x)
    states = [to_numpy(state).copy() for state in model.get_layer("lstm").states]
    conditioned = condition_model(model, trainable_gain="per_unit", check_on=x)
    for state, before in zip(model.get_layer("lstm").states, states, strict=True):
        np.testing.assert_array_equal(to_numpy(state), before)
    np.testing.assert_allclose(to_numpy(conditioned(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-6)
    folded = keras_wcond.fold_model(conditioned)
    np.testing.assert_allclose(to_numpy(folded(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-6)


def test_report_names_layers_whose_kernels_are_not_known(capsys):
    class Mixing(layers.Layer):
        def build(self, input_shape):
            self.mixing = self.add_weight(name="mixing", shape=(input_shape[-1], 3))

        def call(self, inputs):
            return keras.ops.matmul(inputs, self.mixing)

    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a[1]"), Mixing(name="own"), layers.Dense(2)]
    )
    model.layers[2].quantize("int8")
    condition_model(model, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    (own,) = (line for line in lines if "own" in line and "│" in line)
    assert "unknown: see Conditioned(weights=…)" in own
    assert any("a[1]" in line for line in lines)
    assert any("quantized" in line for line in lines)


def test_layers_that_are_conditioned_already_are_left():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            ConditionedDense(4, name="ours", gain=3.0),
            layers.Dense(4),
            layers.Dense(2),
        ]
    )
    conditioned = condition_model(model)
    assert conditioned.get_layer("ours").gain == 3.0
    assert [type(layer) for layer in conditioned.layers[1:]] == [ConditionedDense, layers.Dense]


@pytest.mark.parametrize("name", ["dense", "lstm"])
def test_gains_of_layers_that_are_conditioned_already_are_kept(name):
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            layers.Dense(4, name="dense"),
            layers.LSTM(4, name="lstm"),
            layers.Dense(3, name="rest"),
            layers.Dense(2),
        ]
    )
    once = condition_model(model, layers=name, trainable_gain="scalar")
    for gain in once.get_layer(name).gain_weights:
        gain.assign(5.0)
    twice = condition_model(once, layers="rest")
    assert [float(to_numpy(gain)) for gain in twice.get_layer(name).gain_weights] == [
        5.0 for _ in once.get_layer(name).gain_weights
    ]
    assert type(twice.get_layer("rest")) is ConditionedDense


def test_subclasses_built_as_functional_models():
    class WithStep(keras.Model):
        def train_step(self, *args):
            return super().train_step(*args)

    class WithConstructor(keras.Model):
        def __init__(self, units):
            inputs = keras.Input((3,))
            outputs = layers.Dense(2)(layers.Dense(units, name="hidden")(inputs))
            super().__init__(inputs, outputs)

    inputs = keras.Input((3,))
    model = WithStep(inputs, layers.Dense(2)(layers.Dense(4, name="hidden")(inputs)))
    assert type(condition_model(model)) is WithStep
    conditioned = condition_model(WithConstructor(4))
    assert type(conditioned.get_layer("hidden")) is ConditionedDense
    assert not isinstance(conditioned, WithConstructor)


def test_frozen_layers_stay_frozen():
    model = small()
    model.get_layer("shared").trainable = False
    model.get_layer("block").first.trainable = False
    conditioned = condition_model(model)
    assert len(conditioned.trainable_variables) == len(model.trainable_variables)
    assert conditioned.get_layer("shared").trainable_variables == []
    assert not conditioned.get_layer("block").layer.first.kernel.trainable


def test_gains_of_frozen_layers_are_frozen():
    model = small()
    for name in ("shared", "recurrent", "attention"):
        model.get_layer(name).trainable = False
    conditioned = condition_model(model, trainable_gain="scalar")
    for name in ("shared", "recurrent", "attention"):
        assert conditioned.get_layer(name).trainable_variables == []


def test_functions_that_are_not_registered_are_taken_along():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Lambda(lambda x: 3.0 * x),
            layers.Dense(4, activation=lambda x: keras.ops.sin(x), name="hidden"),
            layers.Dense(2, activation=lambda x: x + 1.0),
        ]
    )
    hidden = model.get_layer("hidden")
    hidden.kernel.assign(0.7 * equilibrated(to_numpy(hidden.kernel)))
    conditioned, x = condition_model(model), normal(2, 3)
    assert type(conditioned.get_layer("hidden")) is ConditionedDense
    np.testing.assert_allclose(to_numpy(conditioned(x)), to_numpy(model(x)), rtol=1e-5)


def test_names_that_look_like_patterns_are_names():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, name="b[1]"),
            layers.Dense(4, name="b1"),
            layers.Dense(2),
        ]
    )
    conditioned = condition_model(model, layers="b[1]")
    kinds = [type(layer) for layer in conditioned.layers]
    assert kinds == [ConditionedDense, layers.Dense, layers.Dense]


def test_layers_of_the_model_are_chosen_themselves():
    model = small()
    conditioned = condition_model(
        model, layers=[model.get_layer("shared"), model.get_layer("features")]
    )
    assert type(conditioned.get_layer("shared")) is ConditionedDense
    assert type(conditioned.get_layer("features").get_layer("stem")) is ConditionedConv2D
    assert type(conditioned.get_layer("attention")) is layers.MultiHeadAttention


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras looks words up with TensorFlow"
)
def test_vocabularies_are_carried_over():
    lookup = layers.StringLookup(vocabulary=["a", "b", "c"])
    inputs = keras.Input((2,), dtype="string")
    x = layers.Flatten()(layers.Embedding(4, 3)(lookup(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(4, name="hidden")(x)))
    words = keras.ops.convert_to_tensor([["a", "c"], ["b", "?"]])
    conditioned = condition_model(model, gain="kernel_norm")
    assert conditioned.layers[1].get_vocabulary() == lookup.get_vocabulary()
    assert np.all(np.isfinite(to_numpy(conditioned(words))))


def test_layer_that_lists_in_its_config_what_its_constructor_refuses(tmp_path):
    """KerasHub's `ViTPatchingAndEmbedding` is one."""

    @keras.saving.register_keras_serializable("tests")
    class Derived(layers.Dense):
        def __init__(self, units, **kwargs):
            super().__init__(units, **kwargs)
            self.doubled = 2 * units

        def get_config(self):
            return {**super().get_config(), "doubled": self.doubled}

    model = keras.Sequential([keras.Input((3,)), Derived(4), layers.Dense(2)])
    conditioned = condition_model(model)
    assert type(conditioned.layers[0].layer) is Derived
    inputs, loaded = normal(2, 3), conditioned
    for _ in range(3):
        loaded.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(to_numpy(loaded(inputs)), to_numpy(conditioned(inputs)))


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
