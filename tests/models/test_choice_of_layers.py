"""Which layers `condition_model` chooses, by default and by `layers=`."""

import keras
import numpy as np
import pytest

import keras_wcond
from keras_wcond import Conditioned, ConditionedConv2D, ConditionedDense, condition_model
from tests.helpers import normal, to_numpy
from tests.models.small_models import small

layers = keras.layers


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
