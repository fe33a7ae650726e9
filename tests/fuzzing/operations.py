"""What is done with a model, each with the properties that it has to keep."""

import copy
import json
import pickle
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_wcond import condition_model, fold_model
from keras_wcond.layers.base.conditioned_layer import ConditionedLayer
from keras_wcond.layers.base.survey import conditioned_layers
from tests.fuzzing import networks
from tests.fuzzing.subject import exactly_equal, kernel_variables, require, with_layer
from tests.helpers import normal, to_numpy

TARGETS = normal(2, 2, seed=9)


def call(subject):
    """A call assigns nothing, and computes the same in training."""
    before, outputs = subject.weights(), subject.outputs()
    in_training = subject.outputs(training=True)
    require(exactly_equal(subject.weights(), before), "a call changed weights")
    require(exactly_equal([in_training], [outputs]), "outputs in training are others")


def train(subject):
    """A step keeps everything finite, and changes weights where they are trained."""
    compile_model(subject)
    before = subject.weights()
    constant = set() if subject.is_plain else constant_kernels(subject)
    loss = subject.model.train_on_batch(subject.inputs, TARGETS)
    require(np.all(np.isfinite(loss)), f"loss {loss}")
    trained = {id(weight) for weight in subject.model.trainable_weights}
    for weight, value, old in zip(subject.model.weights, subject.weights(), before, strict=True):
        require(np.all(np.isfinite(value)), f"{weight.path} is not finite")
        if id(weight) not in trained:
            require(np.array_equal(value, old), f"{weight.path} is not trained, and has changed")
    if not subject.is_plain and is_moved_by_each_step(subject):
        kernels = {id(weight) for weight in kernel_variables(subject.layer)} & trained - constant
        values = zip(subject.model.weights, subject.weights(), before, strict=True)
        still = [w.path for w, new, old in values if id(w) in kernels and np.array_equal(new, old)]
        require(not still, f"a step left {still} as they were")


def constant_kernels(subject):
    """The kernels without a gradient, whose small changes leave the conditioned kernel as it is."""
    raw = subject.layer.raw_kernels.values()
    known = zip(raw, subject.formulas(), subject.raw_kernels(), strict=True)
    return {id(kernel) for kernel, formula, value in known if formula.is_constant_at(value)}


def is_moved_by_each_step(subject):
    """Whether each kernel has a gradient that is not zero, and each step is an update."""
    configuration = subject.configuration
    is_dead = dict(configuration.options).get("activation") == "relu"
    # A zero factor of a separable convolution leaves the other factor without a gradient.
    is_dead |= configuration.kernel == "zero row" and configuration.kind.startswith("Separable")
    waits = configuration.optimizer.extra in ("accumulation", "moving average")
    return not is_dead and not waits and configuration.policy != "mixed_float16"


def compile_model(subject):
    if subject.is_compiled:
        return
    optimizer = networks.optimizer_for(subject.model, subject.configuration, subject.is_plain)
    subject.model.compile(optimizer, "mse", run_eagerly=True)
    subject.is_compiled = True


def fold_layer(subject):
    """The plain layer of `fold()` computes the same, and the layer is left as it is."""
    if subject.is_plain:
        return
    before, pairs = subject.weights(), subject.expected_kernels()
    folded = subject.layer.fold()
    require(not conditioned_layers(folded), "conditioned layers in what was folded")
    require(not isinstance(folded, ConditionedLayer), f"folded into a {type(folded)}")
    model = networks.model_of(folded, subject.configuration)
    model.get_layer("head").set_weights(subject.model.get_layer("head").get_weights())
    subject.require_expected(subject.outputs(model), pairs, "outputs of the folded layer")
    require(exactly_equal(subject.weights(), before), "folding changed weights")


def fold(subject):
    """The plain model of `fold_model()` computes the same."""
    if subject.is_plain:
        return
    before, pairs = subject.weights(), subject.expected_kernels()
    folded = fold_model(subject.model)
    require(not conditioned_layers(folded), "conditioned layers in a folded model")
    subject.require_expected(subject.outputs(folded), pairs, "outputs of the folded model")
    require(exactly_equal(subject.weights(), before), "folding changed weights")


def config_of(layer):
    """The config as a file has it, with lists in place of tuples."""
    config = json.loads(json.dumps(layer.get_config()))
    wrapped = config.get("layer", {})
    # Keras' `Sequential.from_config()` forgets that the model was frozen. The wrapper does not.
    if wrapped.get("class_name") == "Sequential":
        wrapped["config"].pop("trainable", None)
    return config


def become(subject, model, is_merged=False):
    """Goes on with a copy of the model, which has to be the same in everything."""
    require(model is not subject.model, "no copy")
    configs = [config_of(each.get_layer(networks.NAME)) for each in (subject.model, model)]
    names = sorted(configs[0].keys() | configs[1].keys())
    changed = [name for name in names if configs[0].get(name) != configs[1].get(name)]
    values = [[config.get(name) for name in changed] for config in configs]
    require(not changed, f"config of the copy: {changed} {values}")
    if not is_merged:
        copied = [to_numpy(weight) for weight in model.weights]
        require(exactly_equal(copied, subject.weights()), "weights of the copy")
        require(exactly_equal([subject.outputs(model)], [subject.outputs()]), "outputs of the copy")
    subject.model = model


def has_lora(subject):
    return bool(getattr(subject.owner, "lora_enabled", False))


def save(subject):
    """A model from a file is the same, and its optimizer goes on as the one that was saved."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        subject.model.save(path)
        loaded = keras.saving.load_model(path)
    # Keras merges low-rank updates into the kernels that it saves.
    original, is_merged = subject.model, has_lora(subject)
    become(subject, loaded, is_merged)
    if not subject.is_compiled or is_merged:
        return
    losses = [each.train_on_batch(subject.inputs, TARGETS) for each in (original, loaded)]
    require(losses[0] == losses[1], f"losses after loading {losses}")
    expected = [to_numpy(weight) for weight in original.weights]
    require(exactly_equal(subject.weights(), expected), "weights of a step after loading")


def save_weights(subject):
    model = subject.model.__class__.from_config(subject.model.get_config())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        subject.model.save_weights(path)
        model.load_weights(path)
    become(subject, model, has_lora(subject))
    subject.is_compiled = False


def clone(subject):
    model = keras.models.clone_model(subject.model)
    become_with_weights(subject, model)


def from_config(subject):
    model = subject.model.__class__.from_config(subject.model.get_config())
    become_with_weights(subject, model)


def become_with_weights(subject, model):
    model.set_weights(subject.model.get_weights())
    become(subject, model)
    subject.is_compiled = False


def deepcopy(subject):
    become(subject, copy.deepcopy(subject.model), has_lora(subject))


def through_pickle(subject):
    become(subject, pickle.loads(pickle.dumps(subject.model)), has_lora(subject))


def freeze(subject):
    subject.layer.trainable = False
    subject.is_compiled = False
    if not subject.is_plain:
        require(not subject.layer.trainable_weights, "weights of a frozen layer")


def thaw(subject):
    subject.layer.trainable = True
    subject.is_compiled = False


def set_gain(subject):
    """A gain that is no weight may be set at any time."""
    if subject.is_plain or subject.layer.gain_weights:
        return
    subject.layer.gain = 3.0
    subject.configuration = with_layer(subject.configuration, gain=3.0)


def reset_gains(subject):
    if not subject.is_plain:
        subject.layer.reset_gains()


def convert_again(subject):
    """A model that was folded is conditioned by another method."""
    if subject.is_plain or isinstance(subject.owner, keras.Model):
        return
    changed = {"methods": (("newton_step", 0),), "given_as": "name", "gain": "kernel_norm"}
    conditioned = condition_model(
        fold_model(subject.model), "newton_step", gain="kernel_norm", layers=networks.NAME
    )
    subject.configuration = with_layer(
        subject.configuration, **changed, trainable_gain=None, form="converted"
    )
    subject.model, subject.is_compiled = conditioned, False


def lora(subject):
    """Low-rank updates are part of the kernel that is conditioned."""
    if not hasattr(subject.owner, "enable_lora") or has_lora(subject):
        return
    if not subject.owner.trainable:
        return  # Keras adds adapters that are trained to a layer that is frozen.
    # Keras builds a layer from its config with an alpha that equals the rank, plain layers as well.
    copies = {"clone", "from_config", "deepcopy", "pickle", "save", "save_weights"}
    is_rebuilt = copies & {*subject.configuration.operations}
    subject.owner.enable_lora(2, lora_alpha=2 if is_rebuilt else 3)
    for weight in subject.owner.weights:
        if weight.name.startswith("lora") and weight.name.endswith("b"):
            weight.assign(0.1 * normal(*weight.shape))
    subject.is_compiled = False


def quantize(mode):
    """Folds the layer. It equals the folded one that is quantized."""

    def quantize_to(subject):
        if subject.is_plain:
            subject.layer.quantize(mode)
            subject.outputs()
            return
        folded = fold_model(subject.model)
        subject.owner.quantize(mode)
        folded.get_layer(networks.NAME).quantize(mode)
        same = exactly_equal([subject.outputs()], [subject.outputs(folded)])
        require(same, "outputs of the quantized layer")
        require(not conditioned_layers(subject.model), "a quantized layer is conditioned")

    return quantize_to


OPERATIONS = {
    "train": train,
    "call": call,
    "fold_model": fold,
    "fold": fold_layer,
    "save": save,
    "save_weights": save_weights,
    "clone": clone,
    "from_config": from_config,
    "deepcopy": deepcopy,
    "pickle": through_pickle,
    "freeze": freeze,
    "thaw": thaw,
    "set_gain": set_gain,
    "reset_gains": reset_gains,
    "convert_again": convert_again,
    "lora": lora,
    **{mode: quantize(mode) for mode in ("int8", "int4", "float8")},
}
