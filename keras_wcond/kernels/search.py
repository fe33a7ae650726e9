"""The kernels inside a layer of any kind, found by the table of layouts or by name."""

import collections
import dataclasses
import fnmatch
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_wcond.internals import sublayers
from keras_wcond.kernels.keras_layers import kernel_layouts
from keras_wcond.kernels.layout import KernelLayout


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel somewhere inside a layer.

    Args:
        variable: The raw weight.
        layout: Which of its axes are output units.
        path: Its path within the layer that was searched, such as `"lstm_cell/kernel"`.
        holders: The layers it lies in, from the one that was searched to its owner.
        conditioned_by: The layer that conditions it, as a survey of a model finds it, or None.
    """

    variable: keras.Variable
    layout: KernelLayout
    path: str
    holders: tuple[keras.layers.Layer, ...]
    conditioned_by: keras.layers.Layer | None = None

    @property
    def owner(self) -> keras.layers.Layer:
        """The layer that made the variable."""
        return self.holders[-1]

    @property
    def left_by_default(self) -> str | None:
        """Why the kernel is conditioned only where it is asked for, or None."""
        if isinstance(self.owner, keras.layers.Embedding):
            return "embedding"
        # A matrix for each channel, whose rows are a few numbers.
        one_by_one = getattr(self.owner, "groups", 1) > 1 and self.variable.shape[-2] == 1
        return "depthwise" if self.layout.matrix_axes or one_by_one else None


def find_kernels(layer: keras.layers.Layer, weights: Any = None) -> list[Kernel]:
    """The kernels that patterns name, or else those the table knows; at least one.

    Args:
        layer: A built layer.
        weights: None for all that the table knows, except embeddings and depthwise kernels
            of layers inside this one; or what `named_kernels` takes.
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
    """Kernels as `named_kernels` takes them whatever names the layers inside have.

    Names that Keras gives count up, and are others in a copy or in a file that is loaded.
    """
    positions = {id(weight): i for i, weight in enumerate(layer.weights)}
    return [
        {"position": positions[id(kernel.variable)], **dataclasses.asdict(kernel.layout)}
        for kernel in kernels
    ]


def with_unique_paths(kernels):
    """Numbers the kernels of layers that have the same name inside one layer."""
    seen: collections.Counter[str] = collections.Counter()
    unique = []
    for kernel in kernels:
        number = seen[kernel.path]
        seen[kernel.path] += 1
        path = f"{kernel.path}_{number}" if number else kernel.path
        unique.append(dataclasses.replace(kernel, path=path))
    return unique


def kernels_within(layer: keras.layers.Layer) -> list[Kernel]:
    """Every floating-point kernel that the table knows, in a built layer and all it holds."""
    found = {}
    for holders in holders_within(layer):
        owner = holders[-1]
        paths = weights_by_path(owner)
        for path, layout in kernel_layouts(owner).items():
            variable = paths.get(path)
            if variable is not None and _is_floating(variable):
                # The innermost layer that knows a kernel owns it, and is visited last.
                found[id(variable)] = Kernel(
                    variable, layout, path_within(layer, variable), holders
                )
    return list(found.values())


def weights_by_path(layer: keras.layers.Layer) -> dict[str, keras.Variable]:
    """The weights of a built layer and all it holds, by their paths within it."""
    return {path_within(layer, weight): weight for weight in layer.weights}


def path_within(layer: keras.layers.Layer, variable: keras.Variable) -> str:
    return variable.path.removeprefix(f"{layer.path}/")


def named_kernels(layer: keras.layers.Layer, weights: Any) -> list[Kernel]:
    """The kernels that patterns name.

    Args:
        layer: A built layer.
        weights: A pattern such as `"*/kernel"`, or a list of them, or a dict from pattern
            to unit axes, which otherwise are the table's, and -1 for a weight it does not
            know. `*` stands for any characters. Or a list of dicts with the position of a
            weight and the fields of its layout.
    """
    if isinstance(weights, (list, tuple)) and all(isinstance(item, dict) for item in weights):
        return [_kernel_at(layer, **item) for item in weights]
    patterns = _unit_axes_by_pattern(weights)
    known = {id(kernel.variable): kernel for kernel in kernels_within(layer)}
    owners = _owners(layer)
    found: dict[int, Kernel] = {}
    for pattern, unit_axes in patterns.items():
        # Layers of one name make weights of one path.
        weights_here = [(path_within(layer, weight), weight) for weight in layer.weights]
        paths = [path for path, _ in weights_here]
        # A path may itself look like a pattern.
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
            layout.units(weight.shape)  # Which raises where the axes do not fit.
            found[id(weight)] = Kernel(weight, layout, path, owners[id(weight)])
    return list(found.values())


def _kernel_at(layer, position, **layout):
    weight = layer.weights[position]
    path = path_within(layer, weight)
    return Kernel(weight, KernelLayout(**layout), path, _owners(layer)[id(weight)])


def _owners(layer):
    """The layers around each weight; the innermost, which is visited last, comes to count."""
    return {
        id(weight): holders for holders in holders_within(layer) for weight in holders[-1].weights
    }


def _unit_axes_by_pattern(weights):
    patterns = [weights] if isinstance(weights, str) else weights
    is_list = isinstance(patterns, (list, tuple, dict)) and len(patterns) > 0
    if not is_list or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(
            "Expected `weights` to be None, a pattern of weight paths, a list of patterns or a "
            f"dict from pattern to unit axes. Received: weights={weights!r}"
        )
    return patterns if isinstance(patterns, dict) else dict.fromkeys(patterns)


def _require_matrix(path, weight, pattern):
    if len(weight.shape) < 2 or "bias" in weight.name or not _is_floating(weight):
        raise ValueError(
            "Expected patterns that match kernels: floating-point weights with at least two "
            f"axes that are no biases. Received: pattern {pattern!r}, which matches {path!r} of "
            f"shape {tuple(weight.shape)} and dtype {_dtype(weight)}. Choose a narrower pattern."
        )


def _is_floating(variable):
    return "float" in _dtype(variable)


def _dtype(variable):
    return keras.backend.standardize_dtype(variable.value.dtype)


def all_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer and every layer inside it."""
    return [holders[-1] for holders in holders_within(layer)]


def holders_within(layer: keras.layers.Layer, above: tuple = ()) -> Iterator[tuple]:
    """Each layer in a layer, with those around it: the layer itself first."""
    holders = (*above, layer)
    yield holders
    for sublayer in sublayers(layer):
        yield from holders_within(sublayer, holders)
