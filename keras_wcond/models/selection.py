"""The choice of the kernels of a model that are conditioned, and the reasons for the others."""

import dataclasses
import fnmatch
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import keras
import rich.console
import rich.table

from keras_wcond.arguments import class_name, counted
from keras_wcond.diagnostics.tables import terminal_width
from keras_wcond.internals import origin
from keras_wcond.kernels.search import Kernel, all_layers
from keras_wcond.layers.base.survey import survey
from keras_wcond.models.exchange import Above, graph_layers, is_exchangeable

# A layer class, a layer, a pattern of names or paths, or a function of a layer.
Criterion: TypeAlias = type[keras.layers.Layer] | keras.layers.Layer | str | Callable[[Any], Any]
Criteria: TypeAlias = Criterion | list[Criterion] | tuple[Criterion, ...] | None
# Why a kernel is not conditioned, or None if it is.
Select = Callable[[Kernel, Above], str | None]
Match = Callable[[Kernel, Above], bool]


@dataclasses.dataclass(frozen=True)
class Choice:
    """The kernels of one layer of a model's graph that are to be conditioned.

    Args:
        layer: The layer.
        path: The names of the models around the layer and its own name, joined by slashes.
        selected: The kernels of the layer that are to be conditioned.
        known: All kernels of the layer that could be conditioned.
        left: Why other kernels are not conditioned, or None if there are none.
    """

    layer: keras.layers.Layer
    path: str
    selected: list[Kernel]
    known: list[Kernel]
    left: str | None


def choose(
    model: keras.Model, criteria: Criteria = None, even_conditioned: bool = False
) -> list[Choice]:
    """A choice for each layer of a functional or Sequential model.

    Args:
        model: The model.
        criteria: As `layers` of `condition_model()`. Defaults to None.
        even_conditioned: Boolean, whether kernels that are conditioned already may be chosen.
            Defaults to False.

    Returns:
        List of choices, in the order of the model's layers.

    Raises:
        ValueError: No kernel of the model is chosen.
    """
    if criteria is None:
        select = _default_selection(model)
    else:
        listed = list(criteria) if isinstance(criteria, (list, tuple)) else [criteria]
        names = _names_of_layers(model)
        matches = [_matcher(criterion, names) for criterion in listed]
        _require_matches(model, listed, matches, even_conditioned)
        select = _selection_by(matches)
    if not even_conditioned:
        select = _unless_conditioned(select)
    choices = [_choice(layer, above, select) for layer, above in graph_layers(model)]
    if not any(choice.selected for choice in choices):
        raise ValueError(
            "Expected a model with a kernel to condition. Received: "
            f"model={model.name!r}, of whose layers none was chosen. Name the layers to condition "
            f"by `layers=`, as in `layers=[keras.layers.Dense]`.\n{report(choices)}"
        )
    return choices


def report(choices: list[Choice]) -> str:
    """A table of the layers with kernels: conditioned, or left with the reason."""
    headers = ("layer", "class", "kernels", "conditioned", "left, because")
    table = rich.table.Table(*(rich.table.Column(each, overflow="fold") for each in headers))
    with_kernels = [choice for choice in choices if choice.known or choice.left != NO_KERNEL]
    for choice in with_kernels:
        done = len(choice.selected)
        table.add_row(
            choice.path,
            class_name(choice.layer),
            str(len(choice.known)),
            str(done) if done else "-",
            choice.left or "",
        )
    console = rich.console.Console(width=terminal_width(), markup=False, highlight=False)
    with console.capture() as capture:
        console.print(table)
    kernels = sum(len(choice.selected) for choice in choices)
    layers = sum(bool(choice.selected) for choice in choices)
    others = len(choices) - len(with_kernels)
    return (
        f"{capture.get()}Conditioned: {counted(kernels, 'kernel')} of {counted(layers, 'layer')}. "
        f"Without a kernel: {counted(others, 'layer')}.\n"
    )


NO_KERNEL = "no kernel"


def _choice(layer: keras.layers.Layer, above: Above, select: Select) -> Choice:
    known = survey(layer)
    selected: list[Kernel] = []
    reasons: list[str] = []
    for kernel in known:
        reason = select(kernel, above)
        if reason is None:
            selected.append(kernel)
        elif reason not in reasons:
            reasons.append(reason)
    if not known:
        reasons.append(_why_none_is_known(layer))
    path = "/".join([*(model.name for model in above[1:]), layer.name])
    return Choice(layer, path, selected, known, ", ".join(reasons) or None)


def _why_none_is_known(layer: keras.layers.Layer) -> str:
    if any(inner.quantization_mode is not None for inner in all_layers(layer)):
        return "quantized"
    return "unknown: see Conditioned(weights=…)" if _has_matrices(layer) else NO_KERNEL


def _has_matrices(layer: keras.layers.Layer) -> bool:
    return any(len(weight.shape) > 1 for weight in layer.weights)


def _unless_conditioned(select: Select) -> Select:
    def select_plain(kernel: Kernel, above: Above) -> str | None:
        return "conditioned already" if kernel.conditioned_by else select(kernel, above)

    return select_plain


def _default_selection(model: keras.Model) -> Select:
    if not hasattr(model, "outputs"):
        raise ValueError(
            "Expected `layers` for a model that is neither functional nor Sequential, since it "
            f"does not show which layers make its outputs. Received: model={model.name!r}, "
            "layers=None. Name the layers, or pass layers=keras.layers.Layer for all of them."
        )
    heads = _output_layers(model)

    def select(kernel: Kernel, above: Above) -> str | None:
        if kernel.left_by_default is not None:
            return kernel.left_by_default
        layer = kernel.holders[0]
        inner = layer.layer if isinstance(layer, keras.layers.Wrapper) else layer
        if id(layer) in heads and isinstance(inner, keras.layers.Dense):
            return "makes an output"
        return None

    return select


def _output_layers(model: keras.Model) -> set[int]:
    """The ids of the last layers with kernels on the paths to the outputs."""
    found: set[int] = set()
    seen: set[int] = set()
    tensors = list(model.outputs)
    while tensors:
        tensor = tensors.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        operation, inputs = origin(tensor)
        if is_exchangeable(operation) and operation.weights:
            tensors += operation.outputs
        elif isinstance(operation, keras.layers.Layer) and _has_matrices(operation):
            found.add(id(operation))
        else:
            tensors += inputs
    return found


def _selection_by(matches: Sequence[Match]) -> Select:
    def select(kernel: Kernel, above: Above) -> str | None:
        return None if any(match(kernel, above) for match in matches) else "not selected"

    return select


def _matcher(criterion: Criterion, names: set[str]) -> Match:
    if isinstance(criterion, str):
        # A name may itself look like a pattern.
        matches = operator.eq if criterion in names else fnmatch.fnmatchcase
        return lambda kernel, above: any(
            matches(name, criterion) for name in _names(kernel.holders, above)
        )
    if isinstance(criterion, type):
        return lambda kernel, above: any(isinstance(h, criterion) for h in kernel.holders)
    if isinstance(criterion, keras.layers.Layer):
        return lambda kernel, above: any(h is criterion for h in (*above, *kernel.holders))
    if callable(criterion):
        return lambda kernel, above: any(criterion(holder) for holder in kernel.holders)
    raise TypeError(
        "Expected `layers` to be None, a layer class, a layer, a name pattern, a function of a "
        f"layer, or a list of these. Received: {criterion!r} (of type {type(criterion).__name__})"
    )


def _names(holders: Iterable[keras.layers.Layer], above: Above) -> set[str]:
    """The names and the paths of layers, from the outermost nested model inwards."""
    names = [layer.name for layer in (*above[1:], *holders)]
    return {*names, *("/".join(names[: i + 1]) for i in range(len(names)))}


def _names_of_layers(model: keras.Model) -> set[str]:
    return {
        name
        for layer, above in graph_layers(model)
        for kernel in survey(layer)
        for name in _names(kernel.holders, above)
    }


def _require_matches(
    model: keras.Model,
    criteria: Sequence[Criterion],
    matches: Sequence[Match],
    even_conditioned: bool,
) -> None:
    layers = list(graph_layers(model))
    kernels = [(kernel, above) for layer, above in layers for kernel in survey(layer)]
    for criterion, match in zip(criteria, matches, strict=True):
        matching = [kernel for kernel, above in kernels if match(kernel, above)]
        if not matching:
            names = sorted({kernel.owner.name for kernel, _ in kernels})
            raise ValueError(
                "Expected everything in `layers` to match a layer with a kernel. Received: "
                f"layers={criterion!r}, which matches none of {names}.{_class_hint(criterion)}"
            )
        twice = [kernel.path for kernel in matching if kernel.conditioned_by]
        if twice and not even_conditioned:
            raise ValueError(
                "Expected `layers` to match kernels that are not conditioned yet. Received: "
                f"layers={criterion!r}, which matches {twice}, conditioned already."
            )


def _class_hint(criterion: Criterion) -> str:
    """The class to pass where its name was given, or nothing."""
    cls = getattr(keras.layers, criterion, None) if isinstance(criterion, str) else None
    if not isinstance(cls, type) or not issubclass(cls, keras.layers.Layer):
        return ""
    return f" To condition all layers of a class, pass the class: layers=keras.layers.{criterion}."
