"""Substitution replaces what it is given and leaves everything else as it is outside."""

import keras
import numpy as np
import pytest

from keras_wcond.internals import full_precision
from keras_wcond.layers.base.substitution import Substitution
from tests.helpers import to_numpy

ops = keras.ops


def variable(value, **arguments):
    return keras.Variable(np.full((2,), value, "float32"), **arguments)


def value(x):
    return float(to_numpy(ops.cast(x, "float32"))[0])


def filled(number):
    return ops.full((2,), number)


def test_replaced_variable_reads_as_the_tensor_inside_only():
    kernel, other = variable(1.0), variable(2.0)
    with Substitution([(kernel, filled(5.0))]):
        assert (value(kernel), value(other)) == (5.0, 2.0)
    assert value(kernel) == 1.0


def test_values_of_an_enclosing_scope_stay_visible():
    kernel, other = variable(1.0), variable(2.0)
    with keras.StatelessScope(state_mapping=[(kernel, filled(3.0)), (other, filled(4.0))]):
        with Substitution([(kernel, filled(5.0))]):
            assert (value(kernel), value(other)) == (5.0, 4.0)
        assert value(kernel) == 3.0


def test_substitutions_nest():
    first, second = variable(1.0), variable(2.0)
    with Substitution([(first, filled(5.0))]), Substitution([(second, filled(6.0))]):
        assert (value(first), value(second)) == (5.0, 6.0)


def test_updates_are_seen_inside_and_carried_out_on_exit():
    kernel, mean = variable(1.0), variable(2.0)
    with Substitution([(kernel, filled(5.0))]):
        mean.assign(filled(7.0))
        assert value(mean) == 7.0
    assert (value(kernel), value(mean)) == (1.0, 7.0)


def test_updates_reach_an_enclosing_scope_and_not_the_variable():
    kernel, mean = variable(1.0), variable(2.0)
    with keras.StatelessScope() as outer:
        with Substitution([(kernel, filled(5.0))]):
            mean.assign(filled(7.0))
        assert value(outer.get_current_value(mean)) == 7.0
        assert outer.get_current_value(kernel) is None
    assert value(mean) == 2.0


def test_updates_are_dropped_when_the_body_fails():
    kernel, mean = variable(1.0), variable(2.0)

    def fail():
        with Substitution([(kernel, filled(5.0))]):
            mean.assign(filled(7.0))
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    assert (value(kernel), value(mean)) == (1.0, 2.0)


def test_losses_reach_an_enclosing_scope_that_collects_them():
    layer = keras.layers.ActivityRegularization(l2=1.0)
    with keras.StatelessScope(collect_losses=True) as outer, Substitution([]):
        layer(np.ones((1, 2), "float32"))
    np.testing.assert_allclose([float(to_numpy(loss)) for loss in outer.losses], [2.0])


def test_losses_are_given_outside_where_no_scope_collects_them():
    layer, losses = keras.layers.ActivityRegularization(l2=1.0), []
    with Substitution([], losses.extend):
        layer(np.ones((1, 2), "float32"))
        assert losses == []
    np.testing.assert_allclose([float(to_numpy(loss)) for loss in losses], [2.0])


def test_losses_are_dropped_where_the_enclosing_scope_does_not_collect_them():
    layer, losses = keras.layers.ActivityRegularization(l2=1.0), []
    with keras.StatelessScope() as outer, Substitution([], losses.extend):
        layer(np.ones((1, 2), "float32"))
    assert losses == outer.losses == []


def test_seeds_of_dropout_advance():
    dropout = keras.layers.Dropout(0.5)
    masks = []
    for _ in range(2):
        with Substitution([]):
            masks.append(to_numpy(dropout(np.ones((1, 64), "float32"), training=True)))
    assert np.any(masks[0] != masks[1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_values_take_the_dtype_of_the_variable(dtype):
    kernel = variable(1.0, dtype=dtype)
    with Substitution([(kernel, filled(5.0))]):
        assert keras.backend.standardize_dtype(kernel.value.dtype) == dtype
        assert value(kernel) == 5.0


def test_mixed_precision_casts_the_replaced_variable_and_full_precision_does_not():
    class Reading(keras.layers.Layer):
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(2,), initializer="ones", name="kernel")

        def call(self, inputs):
            with Substitution([(self.kernel, filled(5.0))]):
                seen.append(keras.backend.standardize_dtype(self.kernel.value.dtype))
                with full_precision():
                    seen.append(keras.backend.standardize_dtype(self.kernel.value.dtype))
            return inputs * self.kernel

    seen = []
    layer = Reading(dtype="mixed_float16")
    layer.build((None, 2))
    layer(np.ones((1, 2), "float32"))
    assert seen[-2:] == ["float16", "float32"]
