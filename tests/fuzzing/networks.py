"""Small models around one layer, and optimizers for them."""

import keras

from keras_wcond import Conditioned, condition_model, condition_optimizer, conditioners
from tests.fuzzing.configurations import EXTRAS

NAME = "subject"
# Low enough for a wide layer that is called twice, which diverges at higher rates when plain.
RATE = 0.002


def conditioner(configuration):
    """The argument `kernel_conditioner`."""
    steps = configuration.steps
    instances = [conditioners.METHODS[name](**arguments) for name, arguments in steps]
    if configuration.given_as == "list":
        return instances
    (instance,) = instances
    if configuration.given_as == "config":
        return conditioners.serialize(instance)
    is_default = configuration.given_as == "name" and not steps[0][1]
    return steps[0][0] if is_default else instance


def arguments_of_conditioning(configuration):
    return {
        "kernel_conditioner": conditioner(configuration),
        "gain": configuration.gain,
        "trainable_gain": configuration.trainable_gain,
    }


def plain_layer(configuration):
    return configuration.layer.plain(configuration.policy, name=NAME, **dict(configuration.options))


def model_of(layer, configuration):
    """A model that calls a layer once or twice, and has a plain output layer."""
    dtype = "int32" if configuration.layer.tokens else "float32"
    inputs, hidden = [], []
    for _ in range(1 + configuration.is_shared):
        tensors = [keras.Input(shape, dtype=dtype) for shape in configuration.layer.shapes]
        inputs += tensors
        flatten = keras.layers.Flatten(dtype=configuration.policy)
        hidden.append(flatten(layer(*tensors)))
    if configuration.is_shared:
        hidden = [keras.layers.Add(dtype=configuration.policy)(hidden)]
    head = keras.layers.Dense(2, dtype=configuration.policy, name="head")
    return keras.Model(inputs, head(hidden[0]))


def plain_model(configuration):
    return model_of(plain_layer(configuration), configuration)


def conditioned_model(configuration):
    arguments = arguments_of_conditioning(configuration)
    if configuration.form == "converted":
        return condition_model(plain_model(configuration), **arguments, layers=NAME)
    if configuration.form == "wrapper":
        layer = Conditioned(plain_layer(configuration), **arguments, name=NAME)
        return model_of(layer, configuration)
    cls, options = configuration.layer.conditioned, dict(configuration.options)
    layer = cls(
        **configuration.layer.arguments,
        **options,
        **arguments,
        dtype=configuration.policy,
        name=NAME,
    )
    return model_of(layer, configuration)


def optimizer_for(model, configuration, is_plain=False):
    """The optimizer of a configuration, for a model that may be the plain one."""
    own = configuration.optimizer
    further = EXTRAS[own.extra] if own.extra else {}
    name = "SGD" if own.inner == "Momentum" else own.inner
    if own.inner == "Momentum":
        further = {**further, "momentum": 0.9, "nesterov": True}
    inner = getattr(keras.optimizers, name)(RATE, **further)
    if is_plain or (own.update is None and own.weight is None):
        return inner
    return condition_optimizer(inner, model, own.update, own.weight, layers=NAME)
