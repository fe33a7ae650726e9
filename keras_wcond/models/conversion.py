from typing import Any

import keras

from keras_wcond import layers as conditioned_classes
from keras_wcond.conditioners.registry import required
from keras_wcond.diagnostics.progress import progress
from keras_wcond.gains import Gain, TrainableGain, standardize_gain, standardize_trainable_gain
from keras_wcond.internals import without_numbers
from keras_wcond.kernels.search import by_position
from keras_wcond.layers import Conditioned
from keras_wcond.layers.attention import ProjectionConditioning
from keras_wcond.layers.base.conditioned_layer import ConditionedLayer, plain_class
from keras_wcond.layers.base.configs import config_of
from keras_wcond.layers.base.folding import assign_folded_weights, plain_twin
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning
from keras_wcond.layers.base.survey import conditioned_layers
from keras_wcond.models.copying import (
    copy_of,
    transfer_weights,
    transfer_weights_to_conditioned,
)
from keras_wcond.models.counterparts import require_counterpart
from keras_wcond.models.exchange import (
    graph_layers,
    input_structure,
    require_built_model,
    require_exchangeable,
    with_exchanged_layers,
)
from keras_wcond.models.output_change import report_output_change
from keras_wcond.models.selection import Choice, choose, report


def condition_model(
    model: keras.Model,
    kernel_conditioner: Any = "row_equilibration",
    gain: Gain = "initial_norm",
    trainable_gain: TrainableGain = None,
    layers: Any = None,
    verbose: bool = False,
    check_on: Any = None,
) -> keras.Model:
    """A copy of a model with the same weights, in which kernels are conditioned.

    **The copy computes another function** than the model: each kernel W becomes `gain · C(W)`.
    A trained model needs fine-tuning after that; `check_on` tells how far its outputs are off.
    With `kernel_conditioner="row_equilibration"`, `gain="initial_norm"` and
    `trainable_gain="per_unit"`, each gain starts at the norm of its row, and the copy computes
    the same function.

    A layer that has a conditioned class becomes one of that class; any other is wrapped in
    `Conditioned`, which reaches the layers inside it.

    Args:
        model: A built functional or Sequential model, `keras.applications` and KerasHub
            included. It is left as it is. Models nested in it are converted inside, and
            layers that are shared stay shared.
        kernel_conditioner: A name, a config or an instance of a conditioner.
        gain: Positive number, `"auto"`, `"initial_norm"` or `"kernel_norm"`. The default
            keeps the Frobenius norm of each kernel, so that the converted model starts at
            the scale the model had.
        trainable_gain: None, `"scalar"` or `"per_unit"`. `ConditionedLayer` tells what
            these mean.
        layers: None for all but embeddings, depthwise kernels, whose rows are a few numbers
            each, and the Dense layers that make the outputs. Or what to condition: a layer
            class, a layer of the model, a pattern of names or of paths such as `"encoder/*"`,
            a function that is given a layer and returns whether, or a list of these. They
            apply to layers inside layers as well.
        verbose: Boolean. Whether to print which layers are conditioned, which are left,
            and why.
        check_on: None, or one batch of inputs, in the structure that the model takes. The
            relative change of the outputs on it is printed, and in how many rows their argmax
            differs.

    Returns:
        A new model, not compiled, with layers of the same names. A subclass of
        `keras.Model` with a constructor of its own comes back as `keras.Model`.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((3,)), keras.layers.Dense(8), keras.layers.Dense(2)]
    ... )
    >>> [type(layer).__qualname__ for layer in condition_model(model).layers]
    ['ConditionedDense', 'Dense']

    Reference:

    - [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
    """
    arguments = {
        "kernel_conditioner": required(kernel_conditioner, "condition_model"),
        "gain": standardize_gain(gain),
        "trainable_gain": standardize_trainable_gain(trainable_gain),
    }
    require_exchangeable(model)
    choices = {id(choice.layer): choice for choice in choose(model, layers)}
    transfers: list[tuple[Any, keras.layers.Layer, keras.layers.Layer]] = []

    def exchange(layer):
        choice = choices.get(id(layer))
        if choice and choice.selected:
            copy, transfer = _conditioned(choice, arguments), transfer_weights_to_conditioned
        else:
            copy, transfer = copy_of(layer), transfer_weights
        transfers.append((transfer, layer, copy))
        return copy

    conditioned = _exchanged(model, exchange, transfers, "Conditioning")
    if verbose:
        print(report(list(choices.values())))
    if check_on is not None:
        print(report_output_change(model, conditioned, check_on))
    return conditioned


def fold_model(model: keras.Model, into: keras.Model | None = None) -> keras.Model:
    """The plain Keras model that computes the same, ready to be quantized and exported.

    Every conditioned layer in it, `Conditioned` or of a conditioned class, becomes the plain
    layer, whose kernel is the conditioned one with gain and LoRA update merged in.

    A model with a `call` of its own cannot be taken apart and put together again. Make a plain
    one of the same layers in the same order, and give it as `into`.

    Args:
        model: A built functional or Sequential model, or with `into` any built model. It is
            left as it is.
        into: None, or a built model without conditioning, whose layers are made in the same
            order with the same arguments. It receives the folded weights. What its `call` does
            with them is not compared.

    Returns:
        `into`, or a new model, not compiled, with layers of the same names. Neither needs
        `keras_wcond`, as long as `into` is written with plain layers.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((3,)), keras.layers.Dense(8), keras.layers.Dense(2)]
    ... )
    >>> conditioned = condition_model(model)
    >>> [type(layer).__qualname__ for layer in fold_model(conditioned).layers]
    ['Dense', 'Dense']

    A model with a `call` of its own, by an argument that its constructor takes:

    >>> from keras_wcond import ConditionedDense
    >>> class Net(keras.Model):
    ...     def __init__(self, kernel_conditioner="row_equilibration"):
    ...         super().__init__()
    ...         self.hidden = ConditionedDense(8, kernel_conditioner=kernel_conditioner)
    ...         self.last = keras.layers.Dense(2)
    ...     def call(self, inputs):
    ...         return self.last(self.hidden(inputs))
    >>> net, plain = Net(), Net(kernel_conditioner=None)
    >>> x = np.ones((4, 3))
    >>> outputs, _ = net.predict(x, verbose=0), plain.predict(x, verbose=0)  # Which builds them.
    >>> folded = fold_model(net, into=plain)
    >>> bool(np.allclose(folded.predict(x, verbose=0), outputs, atol=1e-6))
    True
    """
    if into is not None:
        return _fold_into(model, into)
    require_exchangeable(model)
    transfers: list[tuple[Any, keras.layers.Layer, keras.layers.Layer]] = []

    def exchange(layer):
        if isinstance(layer, ConditionedLayer) or conditioned_layers(layer):
            plain, transfer = plain_twin(layer), assign_folded_weights
        else:
            plain, transfer = copy_of(layer), transfer_weights
        transfers.append((transfer, layer, plain))
        return plain

    folded = _exchanged(model, exchange, transfers, "Folding")
    # Keras exports no model that was never called; a call without numbers will do.
    folded(keras.tree.map_structure(without_numbers, input_structure(folded)))
    return folded


def _exchanged(model, exchange, transfers, description):
    """A copy of a model with exchanged layers, to which their weights are transferred."""
    with progress(description, 2 * len(list(graph_layers(model)))) as advance:

        def exchange_and_advance(layer):
            advance()
            return exchange(layer)

        copy = with_exchanged_layers(model, exchange_and_advance)
        for transfer, layer, exchanged in transfers:
            transfer(layer, exchanged)
            advance()
    return copy


def _fold_into(model, plain):
    for name, given in (("model", model), ("into", plain)):
        require_built_model(given, name)
    left = [layer.name for layer in conditioned_layers(plain)]
    if left:
        raise ValueError(
            "Expected `into` to be a model without conditioning. Received: "
            f"into={plain.name!r}, in which {left} are conditioned. Make it with plain Keras "
            "layers, or with `kernel_conditioner=None`."
        )
    require_counterpart(model, plain)
    assign_folded_weights(model, plain)
    return plain


_CONDITIONED_CLASSES = {
    plain_class(cls): cls
    for cls in vars(conditioned_classes).values()
    if isinstance(cls, type) and issubclass(cls, (KernelConditioning, ProjectionConditioning))
}


def _conditioned(choice: Choice, arguments):
    layer = choice.layer
    cls = _CONDITIONED_CLASSES.get(type(layer))
    if cls is not None and len(choice.selected) == len(choice.known):
        return cls.from_config({**config_of(layer), **arguments})
    return Conditioned(
        copy_of(layer),
        **arguments,
        weights=by_position(layer, choice.selected),
        name=layer.name,
        trainable=layer.trainable,
    )
