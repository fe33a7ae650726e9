"""Search for kernels inside a layer, by the table of layouts or by patterns."""

import collections
import dataclasses
import fnmatch
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import keras

from keras_wcond.internals import sublayers
from keras_wcond.kernels.keras_layers import kernel_layouts
from keras_wcond.kernels.layout import KernelLayout
from keras_wcond.linalg.arrays import is_floating

# The unit axes of a kernel, or None for the unit axes in the table.
UnitAxes: TypeAlias = int | Sequence[int] | None
# What an argument `weights` accepts: a pattern of weight paths, a list of patterns, a dict from
# pattern to unit axes, or a list of dicts with a position and the fields of a layout.
Weights: TypeAlias = str | Sequence[str] | Mapping[str, UnitAxes] | Sequence[Mapping[str, Any]]
# Layers, each inside the one before.
Holders: TypeAlias = tuple[keras.layers.Layer, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel inside a layer.

    Args:
        variable: The raw weight.
        layout: The reading of the kernel as matrices.
        path: The kernel's path within the searched layer, such as `"lstm_cell/kernel"`.
        holders: The layers around the kernel, from the searched layer to the kernel's owner.
        conditioned_by: The layer that conditions the kernel, or None. Only the survey of a model
            sets it. Defaults to `None`.
    """

    variable: keras.Variable
    layout: KernelLayout
    path: str
    holders: Holders
    conditioned_by: keras.layers.Layer | None = None

    @property
    def owner(self) -> keras.layers.Layer:
        """The layer that created the variable."""
        return self.holders[-1]

    @property
    def left_by_default(self) -> str | None:
        """The reason to condition the kernel only on request, or None."""
        if isinstance(self.owner, keras.layers.Embedding):
            return "embedding"
        # Such a kernel has a matrix per channel, whose rows have few entries.
        one_by_one = getattr(self.owner, "groups", 1) > 1 and self.variable.shape[-2] == 1
        return "depthwise" if self.layout.matrix_axes or one_by_one else None


def find_kernels(layer: keras.layers.Layer, weights: Weights | None = None) -> list[Kernel]:
    """The kernels of a layer and of the layers inside it.

    Args:
        layer: A built layer.
        weights: A pattern, list or dict that `named_kernels()` accepts, or None for all kernels
            in the table of layouts. Those exclude embeddings and depthwise kernels of layers
            inside `layer`. Defaults to `None`.

    Returns:
        A list of at least one `Kernel`, with unique paths.

    Raises:
        ValueError: If no kernel is found, or if `weights` is not valid.
    """
    if weights is not None:
        return with_unique_paths(named_kernels(layer, weights))
    kernels = [
        kernel
        for kernel in kernels_within(layer)
        if kernel.owner is layer or kernel.left_by_default is None
    ]
    if not kernels:
        unbuilt = [inner.name for inner in all_layers(layer) if not inner.built]
        hint = f" Layers inside it are not built: {unbuilt}. Call it once first." if unbuilt else ""
        raise ValueError(
            "Expected a layer whose kernels are known, as those of Keras' layers are, or named by "
            f"`weights=`. Received: layer.name={layer.name!r} of type {type(layer).__qualname__}, "
            f"with the weights {list(weights_by_path(layer))}. Name those that are kernels, as in "
            "`Conditioned(layer, weights='kernel')`, or leave the layer as it is. Depthwise "
            f"kernels and embeddings of layers inside it have to be named as well.{hint}"
        )
    return with_unique_paths(kernels)


def by_position(layer: keras.layers.Layer, kernels: Sequence[Kernel]) -> list[dict[str, Any]]:
    """The positions and layouts of kernels, as `named_kernels()` accepts them.

    Keras numbers the names of layers, so that a copy or a loaded layer has other paths. The
    positions of its weights are the same.

    Args:
        layer: The built layer that was searched.
        kernels: Kernels of the layer.

    Returns:
        A list with a dict for each kernel: its position in `layer.weights` and the fields of its
        `KernelLayout`.
    """
    positions = {id(weight): i for i, weight in enumerate(layer.weights)}
    return [
        {"position": positions[id(kernel.variable)], **dataclasses.asdict(kernel.layout)}
        for kernel in kernels
    ]


def with_unique_paths(kernels: Iterable[Kernel]) -> list[Kernel]:
    """The kernels, with numbers added to paths that occur more than once."""
    seen: collections.Counter[str] = collections.Counter()
    unique: list[Kernel] = []
    for kernel in kernels:
        number = seen[kernel.path]
        seen[kernel.path] += 1
        path = f"{kernel.path}_{number}" if number else kernel.path
        unique.append(dataclasses.replace(kernel, path=path))
    return unique


def kernels_within(layer: keras.layers.Layer) -> list[Kernel]:
    """The floating-point kernels of a built layer and its sublayers, by the table of layouts."""
    found: dict[int, Kernel] = {}
    for holders in holders_within(layer):
        owner = holders[-1]
        paths = weights_by_path(owner)
        for path, layout in kernel_layouts(owner).items():
            variable = paths.get(path)
            if variable is not None and _is_floating(variable):
                # The innermost layer is visited last, and owns the kernel.
                found[id(variable)] = Kernel(
                    variable, layout, path_within(layer, variable), holders
                )
    return list(found.values())


def weights_by_path(layer: keras.layers.Layer) -> dict[str, keras.Variable]:
    """The weights of a built layer and its sublayers, by their paths within the layer."""
    return {path_within(layer, weight): weight for weight in layer.weights}


def path_within(layer: keras.layers.Layer, variable: keras.Variable) -> str:
    """The path of a variable without that of the layer."""
    path: str = variable.path
    return path.removeprefix(f"{layer.path}/")


def named_kernels(layer: keras.layers.Layer, weights: Weights) -> list[Kernel]:
    """The kernels at the paths or positions that `weights` lists.

    Patterns match variable paths, and `*` matches any characters.

    Args:
        layer: A built layer.
        weights: A pattern such as `"*/kernel"`, a list of patterns, or a dict from pattern to
            unit axes. Unit axes that are not given are those of the table of layouts, and -1
            for a weight outside the table. Alternatively a list of dicts with the position of a
            weight and the fields of its layout, from `by_position()`.

    Returns:
        A list of `Kernel`, in the order of `weights`.

    Raises:
        ValueError: If a pattern matches no weight, matches a weight that is not a kernel, or
            matches a weight of an earlier pattern, or if `weights` has another form.
    """
    # An empty list has no patterns, and is refused below.
    is_list = isinstance(weights, (list, tuple)) and len(weights) > 0
    if is_list and all(isinstance(item, Mapping) for item in weights):
        return [_kernel_at(layer, **cast(Mapping[str, Any], item)) for item in weights]
    patterns = _unit_axes_by_pattern(weights)
    known = {id(kernel.variable): kernel for kernel in kernels_within(layer)}
    owners = _owners(layer)
    found: dict[int, Kernel] = {}
    for pattern, unit_axes in patterns.items():
        # Layers of the same name have weights of the same path.
        weights_here = [(path_within(layer, weight), weight) for weight in layer.weights]
        paths = [path for path, _ in weights_here]
        # A path may itself contain the characters of a pattern.
        matches = operator.eq if pattern in paths else fnmatch.fnmatchcase
        matching = [(path, weight) for path, weight in weights_here if matches(path, pattern)]
        if not matching:
            raise ValueError(
                f"Expected every pattern in `weights` to match a weight of layer {layer.name!r}. "
                f"Received: weights={weights!r}, of which {pattern!r} matches none of "
                f"{paths}."
            )
        for path, weight in matching:
            if id(weight) in found:
                raise ValueError(
                    "Expected every weight to be named once. Received: "
                    f"weights={weights!r}, which names {path!r} twice."
                )
            _require_matrix(path, weight, pattern)
            layout = known[id(weight)].layout if id(weight) in known else KernelLayout()
            if unit_axes is not None:
                layout = KernelLayout(unit_axes)
            layout.units(weight.shape)  # An error is raised if the axes do not fit.
            found[id(weight)] = Kernel(weight, layout, path, owners[id(weight)])
    return list(found.values())


def _kernel_at(layer: keras.layers.Layer, position: int, **layout: Any) -> Kernel:
    weight = layer.weights[position]
    path = path_within(layer, weight)
    return Kernel(weight, KernelLayout(**layout), path, _owners(layer)[id(weight)])


def _owners(layer: keras.layers.Layer) -> dict[int, Holders]:
    """The layers around each weight, by the weight's id."""
    # The innermost layer is visited last, so that its entry remains.
    return {
        id(weight): holders for holders in holders_within(layer) for weight in holders[-1].weights
    }


def _unit_axes_by_pattern(weights: Any) -> Mapping[str, UnitAxes]:
    patterns = [weights] if isinstance(weights, str) else weights
    is_list = isinstance(patterns, (list, tuple, dict)) and len(patterns) > 0
    if not is_list or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(
            "Expected `weights` to be None, a pattern of weight paths, a list of patterns or a "
            f"dict from pattern to unit axes. Received: weights={weights!r}"
        )
    return patterns if isinstance(patterns, dict) else dict.fromkeys(patterns)


def _require_matrix(path: str, weight: keras.Variable, pattern: str) -> None:
    if len(weight.shape) < 2 or "bias" in weight.name or not _is_floating(weight):
        dtype = keras.backend.standardize_dtype(weight.value.dtype)
        raise ValueError(
            "Expected patterns that match kernels: floating-point weights with at least two "
            f"axes that are no biases. Received: pattern {pattern!r}, which matches {path!r} of "
            f"shape {tuple(weight.shape)} and dtype {dtype}. Choose a narrower pattern."
        )


def _is_floating(variable: keras.Variable) -> bool:
    return is_floating(variable.value.dtype)


def all_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer and every layer inside it."""
    return [holders[-1] for holders in holders_within(layer)]


def holders_within(layer: keras.layers.Layer, above: Holders = ()) -> Iterator[Holders]:
    """The layer and each layer inside it, outer ones first, each preceded by those around it."""
    holders = (*above, layer)
    yield holders
    for sublayer in sublayers(layer):
        yield from holders_within(sublayer, holders)
