from collections.abc import Callable
from typing import Any

import keras

from keras_wcond import layers as conditioned_classes
from keras_wcond.conditioners.conditioner import ConditionerLike
from keras_wcond.conditioners.registry import required
from keras_wcond.diagnostics.progress import progress
from keras_wcond.gains import Gain, TrainableGain, standardize_gain, standardize_trainable_gain
from keras_wcond.internals import without_numbers
from keras_wcond.kernels.search import by_position
from keras_wcond.layers import Conditioned
from keras_wcond.layers.attention import ProjectionConditioning
from keras_wcond.layers.base.class_facade import plain_class
from keras_wcond.layers.base.conditioned_layer import ConditionedLayer
from keras_wcond.layers.base.configs import config_of
from keras_wcond.layers.base.folding import assign_folded_weights, plain_twin
from keras_wcond.layers.base.kernel_conditioning import KernelConditioning
from keras_wcond.layers.base.survey import conditioned_layers
from keras_wcond.models.copying import (
    copy_of,
    transfer_weights,
    transfer_weights_to_conditioned,
)
from keras_wcond.models.counterparts import require_counterpart, transfer_counterpart
from keras_wcond.models.exchange import (
    Exchange,
    graph_layers,
    input_structure,
    require_built_model,
    require_exchangeable,
    with_exchanged_layers,
)
from keras_wcond.models.output_change import report_output_change
from keras_wcond.models.selection import Choice, Criteria, choose, report

# A function that gives a copy the weights of a layer, the layer, and its copy.
Transfer = tuple[Callable[[Any, Any], None], keras.layers.Layer, keras.layers.Layer]


def condition_model(
    model: keras.Model,
    kernel_conditioner: ConditionerLike = "row_equilibration",
    gain: Gain = "initial_norm",
    trainable_gain: TrainableGain = None,
    layers: Criteria = None,
    verbose: bool = False,
    check_on: Any = None,
) -> keras.Model:
    """A copy of a model with the same weights, in which kernels are conditioned.

    **The copy computes another function** than the model: each kernel W becomes `gain · C(W)`.
    A trained model needs fine-tuning after that. `check_on` reports how much its outputs change.
    With `kernel_conditioner="row_equilibration"`, `gain="initial_norm"` and
    `trainable_gain="per_unit"`, each gain starts at the norm of its row, and the copy computes
    the same function.

    Conditioning in the forward pass is one of several ways to condition a network. The default is
    the paper's method, which rarely scores higher than the plain network.
    `"newton_orthogonalization"` often does, and its steps take longer. Orthogonal updates by
    `condition_optimizer()` gain as much or more in most settings, at less cost, and the model stays
    plain. The page *Choose a method* of the documentation has measured gains and code.

    A layer that has a conditioned class becomes a layer of that class. Any other layer is wrapped
    in `Conditioned`, which conditions the layers inside it.

    A model that is not built, or that has a `call` of its own, is a `ValueError`. So are `layers`
    that match no kernel, or a kernel that is conditioned already. Anything but a model is a
    `TypeError`.

    Args:
        model: A built functional or Sequential model. Models of `keras.applications` and
            KerasHub are such models. It is left as it is. Models nested in it are converted
            inside, and layers that are shared stay shared.
        kernel_conditioner: A name, a config, an instance or a class of a conditioner, or a list
            of these. Defaults to `"row_equilibration"`.
        gain: Factor of each conditioned kernel. Defaults to `"initial_norm"`.

            - A positive number.
            - `"auto"`: `1/√E[φ(z)²]`, z ~ N(0, 1), for the activation φ of the layer.
            - `"initial_norm"`: the number that keeps the Frobenius norm of the kernel, a
              non-trainable weight. The converted model starts at the scale of the model.
            - `"kernel_norm"`: `‖W‖_F / ‖C(W)‖_F` in each step, differentiated through.
        trainable_gain: None, `"scalar"` for one trainable factor per kernel, or `"per_unit"`
            for one per output unit, which starts at the gain. Defaults to None.
        layers: The layers to condition. The criteria also apply to layers inside layers.
            Defaults to None.

            - None for all except embeddings, depthwise kernels, whose rows have a few entries
              only, and Dense output layers.
            - A layer class, such as `keras.layers.Conv2D`.
            - A layer of the model.
            - A pattern of names, or of paths such as `"encoder/*"`.
            - A function that takes a layer and returns a boolean.
            - A list of these, of which a layer has to match one.
        verbose: Boolean. Whether to print the conditioned layers and the skipped layers, with
            reasons. Defaults to False.
        check_on: None, or one batch of inputs, in the structure that the model takes. Prints
            the relative change of the outputs on this batch, and the share of samples whose
            argmax differs. Defaults to None.

    Returns:
        A new model, not compiled, with layers of the same names, and the input and output shapes
        of the model. For a subclass of `keras.Model` with a constructor of its own, it is a
        `keras.Model`.

    Examples:
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
    transfers: list[Transfer] = []

    def exchange(layer: keras.layers.Layer) -> keras.layers.Layer:
        choice = choices.get(id(layer))
        if choice and choice.selected:
            copy = _conditioned(choice, arguments)
            transfers.append((transfer_weights_to_conditioned, layer, copy))
        else:
            copy = copy_of(layer)
            transfers.append((transfer_weights, layer, copy))
        return copy

    conditioned = _exchanged(model, exchange, transfers, "Conditioning")
    if verbose:
        print(report(list(choices.values())))
    if check_on is not None:
        print(report_output_change(model, conditioned, check_on))
    return conditioned


def fold_model(model: keras.Model, into: keras.Model | None = None) -> keras.Model:
    """The plain Keras model with the same outputs, which can be quantized and exported.

    Every conditioned layer in it, `Conditioned` or of a conditioned class, becomes the plain
    layer. The kernel of the plain layer is the conditioned kernel with gain and LoRA update
    merged in.

    A model with a `call` of its own cannot be copied layer by layer. Make a plain model of the
    same layers in the same order, and pass it as `into`.

    A model that is not built is a `ValueError`, and so is a model with a `call` of its own
    without `into`, or an `into` with conditioned layers, other layers or other weights. Anything
    but a model is a `TypeError`.

    Args:
        model: A built functional or Sequential model, or with `into` any built model. It is
            left as it is.
        into: None, or a built model without conditioning, whose layers are made in the same
            order with the same arguments. It receives the folded weights. The two `call`
            methods are not compared. Defaults to None.

    Returns:
        `into`, or a new model, not compiled, with layers of the same names, shapes and dtypes.
        Neither needs `keras_wcond`, as long as `into` is written with plain layers.

    Examples:
        >>> model = keras.Sequential(
        ...     [keras.Input((3,)), keras.layers.Dense(8), keras.layers.Dense(2)]
        ... )
        >>> conditioned = condition_model(model)
        >>> [type(layer).__qualname__ for layer in fold_model(conditioned).layers]
        ['Dense', 'Dense']

        A model with a `call` of its own, whose constructor takes the conditioner:

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
        >>> outputs, _ = net.predict(x, verbose=0), plain.predict(x, verbose=0)  # Builds both.
        >>> folded = fold_model(net, into=plain)
        >>> bool(np.allclose(folded.predict(x, verbose=0), outputs, atol=1e-6))
        True
    """
    if into is not None:
        return _fold_into(model, into)
    require_exchangeable(model)
    transfers: list[Transfer] = []

    def exchange(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, ConditionedLayer) or conditioned_layers(layer):
            plain = plain_twin(layer)
            transfers.append((assign_folded_weights, layer, plain))
        else:
            plain = copy_of(layer)
            transfers.append((transfer_weights, layer, plain))
        return plain

    folded = _exchanged(model, exchange, transfers, "Folding")
    # Keras exports only models that have been called. A symbolic call is enough.
    folded(keras.tree.map_structure(without_numbers, input_structure(folded)))
    return folded


def _exchanged(
    model: keras.Model, exchange: Exchange, transfers: list[Transfer], description: str
) -> keras.Model:
    """A copy of a model with exchanged layers, to which the weights are transferred."""
    with progress(description, 2 * len(list(graph_layers(model)))) as advance:

        def exchange_and_advance(layer: keras.layers.Layer) -> keras.layers.Layer:
            advance()
            return exchange(layer)

        copy = with_exchanged_layers(model, exchange_and_advance)
        for transfer, layer, exchanged in transfers:
            transfer(layer, exchanged)
            advance()
    return copy


def _fold_into(model: keras.Model, plain: keras.Model) -> keras.Model:
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
    transfer_counterpart(model, plain)
    return plain


_CONDITIONED_CLASSES = {
    plain_class(cls): cls
    for cls in vars(conditioned_classes).values()
    if isinstance(cls, type) and issubclass(cls, (KernelConditioning, ProjectionConditioning))
}


def _conditioned(choice: Choice, arguments: dict[str, Any]) -> ConditionedLayer:
    layer = choice.layer
    cls = _CONDITIONED_CLASSES.get(type(layer))
    if cls is not None and len(choice.selected) == len(choice.known):
        conditioned: ConditionedLayer = cls.from_config({**config_of(layer), **arguments})
        return conditioned
    return Conditioned(
        copy_of(layer),
        **arguments,
        weights=by_position(layer, choice.selected),
        name=layer.name,
        trainable=layer.trainable,
    )
