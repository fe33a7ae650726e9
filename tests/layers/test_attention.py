"""Attention with conditioned projections, in every way Keras has of computing it."""

import keras
import numpy as np
import pytest

import keras_wcond
from tests.helpers import normal, to_numpy
from tests.reference import equilibrated_along

layers = keras.layers
QUERY, VALUE, KEY = normal(2, 4, 6), normal(2, 5, 6, seed=1), normal(2, 5, 6, seed=2)
CALLS = {
    "self": ((QUERY, QUERY), {}),
    "cross": ((QUERY, VALUE), {}),
    "a key of its own": ((QUERY, VALUE, KEY), {}),
    "causal": ((QUERY, QUERY), {"use_causal_mask": True}),
    "masked": ((QUERY, VALUE), {"attention_mask": np.tri(4, 5)[None].repeat(2, 0) > 0}),
    "query and value masks": (
        (QUERY, VALUE),
        {"query_mask": np.ones((2, 4), bool), "value_mask": np.arange(10).reshape(2, 5) % 3 > 0},
    ),
}
LAYERS = {
    "multi-head": lambda **arguments: keras_wcond.ConditionedMultiHeadAttention(2, 3, **arguments),
    "group-query": lambda **arguments: keras_wcond.ConditionedGroupQueryAttention(
        3, 4, 2, **arguments
    ),
}


def equilibrated_by_hand(layer):
    """The plain layer, given the raw kernels with unit rows."""
    config = layer.get_config()
    for name in ("kernel_conditioner", "gain", "trainable_gain"):
        del config[name]
    is_grouped = isinstance(layer, layers.GroupQueryAttention)
    cls = layers.GroupQueryAttention if is_grouped else layers.MultiHeadAttention
    plain = cls.from_config(config)
    plain.build_from_config(layer.get_build_config())
    weights = []
    for weight in layer.weights:
        value = to_numpy(weight)
        if weight.name == "kernel":
            is_output = "attention_output" in weight.path
            value = equilibrated_along(value, "hko->o" if is_output else "ihk->hk")
        weights.append(value)
    plain.set_weights(weights)
    return plain


@pytest.mark.parametrize("flash", [False, None])
@pytest.mark.parametrize(("arguments", "keywords"), CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_computes_what_the_plain_layer_computes(make, arguments, keywords, flash):
    layer = make(flash_attention=flash, bias_initializer="normal")
    outputs = to_numpy(layer(*arguments, **keywords))
    expected = to_numpy(equilibrated_by_hand(layer)(*arguments, **keywords))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_scores_are_returned(make):
    layer = make()
    outputs, scores = layer(QUERY, VALUE, return_attention_scores=True)
    plain_outputs, plain_scores = equilibrated_by_hand(layer)(
        QUERY, VALUE, return_attention_scores=True
    )
    np.testing.assert_allclose(to_numpy(scores), to_numpy(plain_scores), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(to_numpy(outputs), to_numpy(plain_outputs), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.sum(to_numpy(scores), axis=-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_dropout_of_scores_draws_anew_and_only_in_training(make):
    layer = make(dropout=0.5)
    first, second = (to_numpy(layer(QUERY, VALUE, training=True)) for _ in range(2))
    assert np.any(first != second)
    first, second = (to_numpy(layer(QUERY, VALUE)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_masks_of_inputs_are_used():
    inputs = QUERY.copy()
    inputs[:, 3:] = 0.0
    layer = keras_wcond.ConditionedMultiHeadAttention(2, 3, use_bias=False)
    masked = layers.Masking()(keras.ops.convert_to_tensor(inputs))
    outputs = to_numpy(layer(masked, masked))[:, :3]
    expected = to_numpy(layer(inputs[:, :3], inputs[:, :3]))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_objects_that_are_not_registered_reach_the_projections():
    class Halving(keras.constraints.Constraint):
        def __call__(self, weight):
            return 0.5 * weight

    constraint = Halving()
    layer = keras_wcond.ConditionedMultiHeadAttention(2, 3, kernel_constraint=constraint)
    layer(QUERY, QUERY)
    assert all(kernel.constraint is constraint for kernel in layer.raw_kernels.values())


def test_automatic_gain_is_one():
    layer = keras_wcond.ConditionedMultiHeadAttention(2, 3, gain="auto")
    layer(QUERY, QUERY)
    kernel = to_numpy(layer.conditioned_kernels["query/kernel"])
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1.0, rtol=1e-4)


def test_projections_are_told_of_by_path():
    layer = keras_wcond.ConditionedGroupQueryAttention(3, 4, 2, trainable_gain="scalar")
    layer(QUERY, QUERY)
    paths = ["query/kernel", "key/kernel", "value/kernel", "attention_output/kernel"]
    assert list(layer.raw_kernels) == list(layer.conditioned_kernels) == paths
    assert [gain.name for gain in layer.gain_weights] == ["gain"] * 4


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="Expected `gain` to be a positive number"):
        keras_wcond.ConditionedMultiHeadAttention(2, 3, gain=-1.0)
    with pytest.raises(ValueError, match="Expected `trainable_gain` to be None"):
        keras_wcond.ConditionedGroupQueryAttention(3, 4, 2, trainable_gain="both")
