"""Functions that run a layer again for the gradient, such as checkpoints."""

import keras
import pytest

from keras_wcond import Conditioned
from tests.helpers import normal, relative
from tests.layers.cases import CASES
from tests.layers.deferred import (
    BACKEND,
    Around,
    conditioned,
    every_form,
    layers,
    weights_after_training,
)

RERUNS = {
    "tensorflow": ["keras.remat", "tf.recompute_grad"],
    "torch": ["keras.remat", "checkpoint", "reentrant checkpoint"],
    "jax": ["keras.remat", "jax.checkpoint"],
}


def rerun(function, by):
    """A function that runs another again for the gradient."""
    if by == "keras.remat":
        return keras.remat(function)
    if by == "tf.recompute_grad":
        import tensorflow as tf

        return tf.recompute_grad(function)
    if by == "jax.checkpoint":
        import jax

        return jax.checkpoint(function)
    from torch.utils.checkpoint import checkpoint

    return lambda *args: checkpoint(function, *args, use_reentrant="reentrant" in by)


class RunsAgain(layers.Layer):
    """A user's layer that rematerializes a part of itself."""

    def __init__(self, by=None, **kwargs):
        super().__init__(**kwargs)
        self.by = by
        self.first, self.second = layers.Dense(4, "tanh"), layers.Dense(3)

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build((*input_shape[:-1], 4))

    def call(self, inputs):
        # A new function for each call. JAX keeps what it traced of one while that lives, and takes
        # two bound methods of one layer for the same, of plain layers too.
        def both(inputs):
            return self.second(self.first(inputs))

        return (rerun(both, self.by) if self.by else both)(inputs)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX differentiates what it traced once")
@pytest.mark.parametrize("by", RERUNS[BACKEND])
def test_kernels_that_are_read_again_for_the_gradient_are_refused(by):
    layer = Conditioned(RunsAgain(by, name="again"))
    message = r"`call` runs once.*'again', which reads \['dense\w*/kernel', 'dense\w*/kernel'\]"
    with pytest.raises(ValueError, match=message):
        layer(normal(2, 5))


@pytest.mark.skipif(BACKEND != "jax", reason="on other backends the test before this one has it")
@pytest.mark.parametrize("by", RERUNS[BACKEND])
def test_kernels_that_are_read_in_a_checkpoint_have_their_gradients(by):
    trained = [
        weights_after_training(Conditioned(RunsAgain(name)), CASES["Dense"]) for name in (None, by)
    ]
    for plain, rematerialized in zip(*trained, strict=True):
        assert relative(rematerialized, plain) <= 1e-5


class CallsAgain(Around):
    """A user's layer that rematerializes the one inside it."""

    def __init__(self, inner, by=None, **kwargs):
        super().__init__(inner, **kwargs)
        self.by = by

    def call(self, inputs):
        # A new function for each call: JAX keeps what it traced of one, of plain layers too.
        def inner(inputs):
            return self.inner(inputs)

        return (rerun(inner, self.by) if self.by else inner)(inputs)


@every_form
@pytest.mark.parametrize("by", RERUNS[BACKEND])
def test_conditioned_layers_can_be_called_in_what_runs_again(by, form):
    case = CASES["Dense"]
    trained = [
        weights_after_training(CallsAgain(conditioned(case, form), name), case)
        for name in (None, by)
    ]
    for plain, rematerialized in zip(*trained, strict=True):
        assert relative(rematerialized, plain) <= 1e-5
