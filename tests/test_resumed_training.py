"""A run that is killed and resumed ends with the weights of one that was not, bit for bit."""

import shutil

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned, condition_optimizer
from tests.helpers import normal, to_numpy
from tests.layers.cases import CASES
from tests.layers.wrapped_layers import WRAPPED

BACKEND = keras.backend.backend()
SETTINGS = (
    {"kernel_conditioner": "polynomial_preconditioner", "gain": "kernel_norm"},
    {"kernel_conditioner": "newton_orthogonalization", "gain": "initial_norm"},
    {"kernel_conditioner": "row_equilibration", "trainable_gain": "per_unit"},
)
# Keras saves no seeds: dropout draws other masks after a run is resumed, in plain layers as well.
WITH_DROPOUT = ("a layer of one's own",)
OPTIMIZERS = {
    "plain": lambda model: keras.optimizers.Adam(0.01),
    "conditioned": lambda model: condition_optimizer(
        keras.optimizers.AdamW(0.01, clipnorm=1.0),
        model,
        "newton_orthogonalization",
        "newton_step",
        every=2,
        layers=keras.layers.Layer,
    ),
}


def branches():
    """Each conditioned layer, and each kind of layer in the wrapper, with arrays of inputs."""
    made = []
    for index, case in enumerate(CASES.values()):
        layer = case.conditioned(**case.arguments, **SETTINGS[index % len(SETTINGS)])
        made.append((layer, case.inputs(batch=4)))
    for index, (name, (make, inputs, _)) in enumerate(WRAPPED.items()):
        if name in WITH_DROPOUT:
            continue
        layer = Conditioned(make(), **SETTINGS[index % len(SETTINGS)])
        made.append((layer, [inputs]))
    return made


def make_model(kind, seed):
    """A model of all layers, side by side, which takes one compilation, and its inputs."""
    keras.utils.set_random_seed(seed)
    tensors, outputs, arrays = [], [], []
    for layer, inputs in branches():
        own = [keras.Input(x.shape[1:], dtype=str(x.dtype)) for x in inputs]
        result = layer(*own)
        axes = tuple(range(1, len(result.shape)))
        outputs.append(keras.ops.reshape(keras.ops.mean(result, axis=axes), (-1, 1)))
        tensors += own
        arrays += inputs
    head = keras.layers.Dense(1)(keras.layers.Concatenate()(outputs))
    model = keras.Model(tensors, head)
    model.compile(
        OPTIMIZERS[kind](model), "mse", run_eagerly=BACKEND != "jax", jit_compile=BACKEND == "jax"
    )
    return model, arrays


def fit(model, arrays, epochs, **kwargs):
    model.fit(
        arrays,
        normal(4, 1, seed=5),
        batch_size=4,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        **kwargs,
    )


class Kill(keras.callbacks.Callback):
    """Keeps what a run has on disk after an epoch, which is what is left of one that is killed."""

    def __init__(self, backup, folder):
        super().__init__()
        self.backup, self.folder = backup, folder

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            shutil.copytree(self.backup, self.folder / "left")
            self.model.save(self.folder / "model.keras")


def state(model):
    """All weights, with those of the optimizer."""
    variables = [*model.weights, *model.optimizer.variables]
    return {f"{i} {each.path}": to_numpy(each).copy() for i, each in enumerate(variables)}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_resumed_run_ends_as_one_that_was_not_killed(kind, tmp_path):
    model, arrays = make_model(kind, seed=0)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    fit(model, arrays, 2, callbacks=[backup, Kill(tmp_path / "backup", tmp_path)])
    expected = state(model)

    resumed, _ = make_model(kind, seed=1)
    fit(resumed, arrays, 2, callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "left")])
    require_equal(state(resumed), expected)

    loaded = keras.saving.load_model(tmp_path / "model.keras")
    fit(loaded, arrays, 2, initial_epoch=1)
    require_equal(state(loaded), expected)


def require_equal(found, expected):
    different = [
        path
        for (path, value), other in zip(expected.items(), found.values(), strict=True)
        if not np.array_equal(value, other)
    ]
    assert not different
