"""Optimizers that condition the updates of kernels, or the kernels after updates."""

import dataclasses
import functools
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_wcond import backends, conditioners
from keras_wcond.arguments import positive_integer
from keras_wcond.conditioners.conditioner import Conditioner, ConditionerLike
from keras_wcond.gains import standardize_gain
from keras_wcond.internals import position_of, share_weight_decay, updating_one_by_one
from keras_wcond.kernels.layout import KernelLayout
from keras_wcond.linalg.arrays import Tensor, cast, tensor, widened
from keras_wcond.models.exchange import require_built_model
from keras_wcond.models.selection import Criteria, choose
from keras_wcond.reparametrization import Reparametrization

# The root mean square of an update's entries, over the learning rate, in Keras' Muon.
MUON_RATE = 0.2

MISMATCH = (
    "Expected trainable weights with the kernels that `condition_optimizer()` chose. Received: "
    "other weights, whose updates this optimizer cannot condition. Convert, freeze, quantize or "
    "adapt layers first, then call `condition_optimizer()` for the model that you compile."
)

# The argument `gain` of `condition_optimizer()`.
UpdateGain: TypeAlias = float | Literal["kernel_norm", "muon"]


def condition_optimizer(
    optimizer: keras.optimizers.Optimizer | str | dict[str, Any],
    model: keras.Model,
    update_conditioner: ConditionerLike = None,
    weight_conditioner: ConditionerLike = None,
    every: int = 1,
    gain: UpdateGain = "kernel_norm",
    layers: Criteria = None,
) -> keras.optimizers.Optimizer:
    """An optimizer that conditions the updates of kernels, or the kernels after updates.

    The forward pass and its gradient stay those of the plain model, and there is nothing to fold.

    `W ← W + gain · C(ΔW)`, ΔW the update that the given optimizer would make

    `W ← ‖W‖_F / ‖C(W)‖_F · C(W)`, every `every` updates, for a `weight_conditioner`

    Each kernel is read as matrices by the layout of its layer: filters as rows, and groups, gates
    and heads as they are multiplied. Weight decay is left out of ΔW. Other weights are updated as
    by the given optimizer. Learning rate schedules, clipping, moving averages, gradient
    accumulation, loss scaling, compilation, saving and distribution work as with it.

    With `optimizer=SGD(rate, momentum=0.95, nesterov=True)`, the polynomials of
    `keras.optimizers.Muon` as the `update_conditioner` and `gain="muon"`, the kernels of `Dense`
    layers are updated as by `Muon`, and those of convolutions and recurrent layers by matrices.
    Given `optimizer=Muon(rate, ns_steps=0)` and `gain="muon"`, the `update_conditioner` takes the
    place of Muon's own iterations.

    Args:
        optimizer: A Keras optimizer, or a name or config of one. It is left as it is.
        model: A built model. Its kernels are chosen as by `condition_model()`, those of
            conditioned layers included. A kernel that is frozen now stays without conditioning.
            After other changes of what is trained, make the optimizer anew.
        update_conditioner: Name, config, instance or subclass of `Conditioner`, a list of
            these, or None for plain updates. With a method that centers rows, as
            `"newton_orthogonalization"` does by default, the mean of each row of W never changes.
            Defaults to None.
        weight_conditioner: The same for the kernels after an update. Defaults to None.
        every: Positive integer. The number of updates from one conditioning of the kernels to
            the next. Defaults to 1.
        gain: Factor of the conditioned update. Defaults to `"kernel_norm"`.

            - `"kernel_norm"`: the factor that keeps the Frobenius norm of the update.
            - A positive number: the conditioner is applied to the update divided by the learning
              rate, and its result is multiplied by the learning rate and this number.
            - `"muon"`: the number `0.2 · √max(m, n)` for m × n matrices, as in Keras' `Muon`.
        layers: The layers whose kernels are conditioned, as in `condition_model()`. Defaults
            to None.

    Returns:
        A new optimizer of a class that extends that of `optimizer`, not built.

    Raises:
        ValueError: Both conditioners are None, `every` is not a positive integer, `gain` or
            `every` is given without the conditioner that it belongs to, the model is not built,
            no kernel of it is chosen, a chosen kernel has one input and the method centers rows,
            or the optimizer wraps another one. In the first update: the optimizer sets weights from
            state of its own, as `Ftrl` does, or the weights are not those of the model. Another
            object than a Keras optimizer is a `TypeError`.

    Examples:
        >>> layers = [keras.layers.Dense(4), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((8,)), *layers])
        >>> optimizer = condition_optimizer(
        ...     "adam", model, weight_conditioner="newton_step", every=10
        ... )
        >>> model.compile(optimizer, "mse")
        >>> history = model.fit(np.ones((16, 8)), np.ones((16, 2)), verbose=0)

    Reference:

    - Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024
    """
    require_built_model(model)
    choices = choose(model, layers, even_conditioned=True)
    positions = {id(variable): i for i, variable in enumerate(model.trainable_variables)}
    chosen = [
        kernel
        for choice in choices
        for kernel in choice.selected
        if id(kernel.variable) in positions
    ]
    if not chosen:
        raise ValueError(
            "Expected a model with a trainable kernel to condition. Received: "
            f"model={model.name!r}, whose chosen kernels are all frozen."
        )
    given = _require_optimizer(optimizer)
    arguments = {
        "update_conditioner": conditioners.get(update_conditioner),
        "weight_conditioner": conditioners.get(weight_conditioner),
        "every": positive_integer("every", every),
        "gain": standardize_gain(gain, ("kernel_norm", "muon")),
        "kernels": [
            {
                "position": positions[id(kernel.variable)],
                "unit_axes": list(kernel.layout.unit_axes),
                "matrix_axes": list(kernel.layout.matrix_axes),
                "blocks": kernel.layout.blocks,
            }
            for kernel in chosen
        ],
        "trainable_weights": _described(model.trainable_variables),
    }
    if update_conditioner is None and weight_conditioner is None:
        raise ValueError(
            "Expected `update_conditioner` or `weight_conditioner` to be a conditioner. Received: "
            "update_conditioner=None, weight_conditioner=None. Use the optimizer itself."
        )
    if update_conditioner is None and gain != "kernel_norm":
        raise ValueError(
            "Expected `gain` only with an `update_conditioner`, since stored kernels keep their "
            f"norm. Received: gain={gain!r}, update_conditioner=None"
        )
    if weight_conditioner is None and every != 1:
        raise ValueError(
            "Expected `every` only with a `weight_conditioner`, since each update is conditioned. "
            f"Received: every={every}, weight_conditioner=None"
        )
    for name in ("update_conditioner", "weight_conditioner"):
        _require_nonzero_results(name, arguments[name], chosen)
    return _around(given, arguments, [kernel.variable for kernel in chosen])


@dataclasses.dataclass
class _Updated:
    """A kernel whose optimizer has done its part.

    Args:
        variable: The kernel.
        layout: `KernelLayout`. Its reading as matrices.
        update: The change that is to be conditioned, or None.
    """

    variable: Any
    layout: KernelLayout
    update: Tensor


@dataclasses.dataclass
class _Conditioning:
    """What a conditioned optimizer does to kernels.

    Args:
        optimizer: The config of the given optimizer, without its arguments.
        kernels: List of dicts with the position of each kernel among the weights, and the fields
            of its layout.
        trainable_weights: The name and the shape of each weight that is trained.
        update_conditioner: `Conditioner` or None.
        weight_conditioner: `Conditioner` or None.
        every: Number of updates from one conditioning of the kernels to the next.
        gain: As in `condition_optimizer()`.
        variables: The kernels themselves, or None for an optimizer made from a config.
        layouts: Dict from the position of each kernel among the variables to its layout.
        target: The kernel that the given optimizer updates at the moment, or None.
        changes: The changes of that kernel so far.
        given: The variables that are being updated, or None before the first update.
        waiting: The positions of the kernels among them.
        updated: Those that were updated, and are to be conditioned together.
    """

    optimizer: dict[str, Any]
    kernels: list[dict[str, Any]]
    trainable_weights: list[list[Any]]
    update_conditioner: Conditioner | None
    weight_conditioner: Conditioner | None
    every: int
    gain: UpdateGain
    variables: list[Any] | None = None
    layouts: dict[int, KernelLayout] = dataclasses.field(default_factory=dict)
    target: Any = None
    changes: list[Tensor] = dataclasses.field(default_factory=list)
    given: list[Any] | None = None
    waiting: set[int] | None = None
    updated: list[_Updated] = dataclasses.field(default_factory=list)

    def find(self, variables: Sequence[Any]) -> bool:
        """Finds the positions of the kernels among the variables of an optimizer.

        Names of layers and models change when they are loaded. An optimizer that is made from a
        config therefore expects weights of the same names and shapes in the same order.

        Returns:
            Whether there is a kernel to condition.
        """
        weights = _described(variables)
        if self.variables is not None:
            positions = {id(variable): i for i, variable in enumerate(variables)}
            # What was frozen since, or is given to another optimizer, is not among them.
            self.kernels = [
                {**kernel, "position": positions[id(variable)]}
                for variable, kernel in zip(self.variables, self.kernels, strict=True)
                if id(variable) in positions
            ]
        elif _unnumbered(weights) != _unnumbered(self.trainable_weights):
            return False
        self.trainable_weights, self.variables = weights, None
        self.layouts = {kernel["position"]: _layout(kernel) for kernel in self.kernels}
        return bool(self.layouts)

    def begin(self, variables: Sequence[Any]) -> None:
        """Begins an update of variables."""
        if not self.layouts:
            raise ValueError(MISMATCH)
        self.given, self.waiting, self.updated = [*variables], None, []

    def is_complete(self, optimizer: Any) -> bool:
        """Whether all kernels of the update that has begun were updated."""
        if self.given is None or backends.updates_variables_apart():
            return True
        if self.waiting is None:
            positions = {position_of(optimizer, variable) for variable in self.given}
            self.waiting = positions & self.layouts.keys()
        return len(self.updated) >= len(self.waiting)

    def updates(self, updated: list[_Updated], learning_rate: Tensor) -> list[Tensor]:
        """The conditioned updates of kernels."""
        if self.update_conditioner is None:
            return []
        layouts = [each.layout for each in updated]
        dtypes = [each.update.dtype for each in updated]
        wide = [widened(each.update) for each in updated]
        if self.gain == "kernel_norm":
            reparametrization = Reparametrization(self.update_conditioner, self.gain)
            return _cast_all(reparametrization.apply_to_all(wide, layouts), dtypes)
        rates = [cast(ops.convert_to_tensor(learning_rate), update.dtype) for update in wide]
        directions = [
            update / ops.where(rate == 0.0, ops.ones_like(rate), rate)
            for update, rate in zip(wide, rates, strict=True)
        ]
        conditioned = Reparametrization(self.update_conditioner).apply_to_all(directions, layouts)
        factors = [
            _muon_gain(layout, update.shape) if self.gain == "muon" else self.gain
            for layout, update in zip(layouts, wide, strict=True)
        ]
        products = [
            rate * factor * each
            for rate, factor, each in zip(rates, factors, conditioned, strict=True)
        ]
        return _cast_all(products, dtypes)

    def weights(
        self, kernels: list[Tensor], layouts: list[KernelLayout], is_due: Tensor | bool
    ) -> list[Tensor]:
        """The conditioned kernels, or the given ones if conditioning is not due."""
        if self.weight_conditioner is None:
            return kernels
        reparametrization = Reparametrization(self.weight_conditioner, "kernel_norm")
        found = [*kernels]
        for members in reparametrization.groups(kernels, layouts):
            given = [kernels[index] for index in members]

            def condition(
                given: list[Tensor] = given, layout: KernelLayout = layouts[members[0]]
            ) -> list[Tensor]:
                results = reparametrization.apply_to_group([*map(widened, given)], layout)
                return _cast_all(results, [kernel.dtype for kernel in given])

            if is_due is True:
                results = condition()
            else:
                # One for each group, since XLA copies all results of a conditional but one.
                results = ops.cond(is_due, condition, functools.partial(list, given))
            for index, result in zip(members, results, strict=True):
                found[index] = result
        return found

    @classmethod
    def config_entries(cls) -> set[str]:
        """The names of the entries of a config: the arguments without a default."""
        missing = dataclasses.MISSING
        fields = dataclasses.fields(cls)
        return {f.name for f in fields if f.default is missing and f.default_factory is missing}

    def get_config(self) -> dict[str, Any]:
        """The arguments, for serialization."""
        return {
            "kernels": self.kernels,
            "trainable_weights": self.trainable_weights,
            "update_conditioner": conditioners.serialize(self.update_conditioner),
            "weight_conditioner": conditioners.serialize(self.weight_conditioner),
            "every": self.every,
            "gain": self.gain,
        }


@keras.saving.register_keras_serializable(package="keras_wcond")
class ConditionedOptimizer:
    """Mixin of the optimizers that `condition_optimizer()` makes.

    Keras' optimizers change a variable in `update_step()`, by `assign_add()` and `assign_sub()`.
    The changes of a kernel are collected there, and their sum is conditioned.
    """

    _conditioning: _Conditioning
    _trainable_variables: Any
    iterations: Any
    gradient_accumulation_steps: int | None

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the optimizer's variables, and finds the kernels among the given ones."""
        super().build(variables)  # type: ignore[misc]
        own = self._conditioning
        is_from_config = own.variables is None
        if not own.find(variables):
            if not is_from_config:
                raise ValueError(MISMATCH)
            # Keras builds the optimizer of a model that is loaded, maybe only to be used.
            warnings.warn(MISMATCH, stacklevel=2)

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        """Updates variables, then conditions kernels.

        Keras calls this once for an update, after it accumulated gradients, and before moving
        averages and constraints.
        """
        own = self._conditioning
        own.begin(trainable_variables)
        super()._backend_update_step(grads, trainable_variables, learning_rate)  # type: ignore[misc]
        # A call of `update_step()` by itself waits for no other kernel.
        own.given = None
        if own.weight_conditioner is not None:
            self._condition_weights(trainable_variables)

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """Updates a variable, a kernel by its conditioned update."""
        own = self._conditioning
        layout = own.layouts.get(position_of(self, variable))
        if layout is None:
            super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]
            return
        own.target, own.changes = variable, []
        try:
            super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]
        finally:
            own.target = None
        if own.update_conditioner is None:
            return
        own.updated.append(_Updated(variable, layout, sum(own.changes) if own.changes else None))
        if own.is_complete(self):
            updated, own.updated = [each for each in own.updated if each.update is not None], []
            for each, update in zip(updated, own.updates(updated, learning_rate), strict=True):
                self.assign_add(each.variable, update)

    def _condition_weights(self, variables: Sequence[Any]) -> None:
        """Conditions the kernels among the variables, if this is one of every `every` updates."""
        own = self._conditioning
        found = [(own.layouts.get(position_of(self, each)), each) for each in variables]
        layouts, chosen = [], []
        for layout, variable in found:
            if layout is not None:
                layouts.append(layout)
                chosen.append(variable)
        kernels = [tensor(variable) for variable in chosen]
        # Keras counts this update afterwards.
        is_due = own.every == 1 or ops.equal((self.iterations + 1) % own.every, 0)
        conditioned = own.weights(kernels, layouts, is_due)
        for variable, before, after in zip(chosen, kernels, conditioned, strict=True):
            if after is not before:
                variable.assign(after)

    def assign_add(self, variable: Any, value: Tensor) -> None:
        """Adds to a variable."""
        if self._has_conditioned_update(variable):
            change = backends.dense(ops.convert_to_tensor(value), variable.shape)
            self._conditioning.changes.append(change)
        else:
            super().assign_add(variable, value)  # type: ignore[misc]

    def assign_sub(self, variable: Any, value: Tensor) -> None:
        """Subtracts from a variable."""
        if self._has_conditioned_update(variable):
            change = backends.dense(ops.convert_to_tensor(value), variable.shape)
            self._conditioning.changes.append(-change)
        else:
            super().assign_sub(variable, value)  # type: ignore[misc]

    def assign(self, variable: Any, value: Tensor) -> None:
        """Sets a variable."""
        if self._is_conditioned(variable):
            raise ValueError(
                "Expected an optimizer that adds an update to a kernel. Received: "
                f"{type(self).__name__}, which sets kernels to values from state of its own. Use "
                "another optimizer, or condition the layers with `condition_model()`."
            )
        super().assign(variable, value)  # type: ignore[misc]

    def get_config(self) -> dict[str, Any]:
        """The config of the given optimizer, the conditioners and the kernels."""
        inner = {**self._conditioning.optimizer, "config": super().get_config()}  # type: ignore[misc]
        return {"optimizer": inner, **self._conditioning.get_config()}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> keras.optimizers.Optimizer:
        """The optimizer with the arguments that `get_config()` returned."""
        arguments = {**config}
        expected = _Conditioning.config_entries()
        if arguments.keys() != expected:
            raise ValueError(
                f"Expected the config of a conditioned optimizer, with the entries "
                f"{sorted(expected)}. Received: config with the entries {sorted(arguments)}. "
                "Load it with the version of `keras_wcond` that wrote it, or call "
                "`condition_optimizer()` again."
            )
        number = len(arguments["trainable_weights"])
        positions = [kernel["position"] for kernel in arguments["kernels"]]
        if not all(position in range(number) for position in positions):
            raise ValueError(
                "Expected the config of a conditioned optimizer, with kernels among its "
                f"{number} trainable weights. Received: kernels at the positions {positions}"
            )
        # Not by `keras.optimizers.deserialize()`, which returns a string for `Lamb`.
        inner = keras.saving.deserialize_keras_object(arguments.pop("optimizer"), custom_objects)
        for name in ("update_conditioner", "weight_conditioner"):
            arguments[name] = conditioners.deserialize(arguments[name], custom_objects)
        return _around(inner, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        # The class has no name that pickle could find. Its base class loads the same file.
        load, arguments = tuple(super().__reduce__())[:2]
        return getattr(keras.optimizers.Optimizer, load.__name__), arguments

    def _has_conditioned_update(self, variable: Any) -> bool:
        is_conditioned = self._is_conditioned(variable)
        return is_conditioned and self._conditioning.update_conditioner is not None

    def _is_conditioned(self, variable: Any) -> bool:
        own = vars(self).get("_conditioning")
        return own is not None and own.target is not None and variable is own.target


def _muon_gain(layout: KernelLayout, shape: Sequence[int]) -> float:
    return MUON_RATE * math.sqrt(max(_matrix_shape(layout, shape)))


def _matrix_shape(layout: KernelLayout, shape: Sequence[int]) -> tuple[int, int]:
    """The numbers of rows and columns of the matrices of a kernel, without a copy of it."""
    _, rows, columns = layout.to_matrices(np.broadcast_to(np.float32(0.0), tuple(shape))).shape
    return rows, columns


def _cast_all(tensors: list[Tensor], dtypes: list[Any]) -> list[Tensor]:
    return [cast(each, dtype) for each, dtype in zip(tensors, dtypes, strict=True)]


def _described(variables: Sequence[Any]) -> list[list[Any]]:
    return [[variable.name, list(variable.shape)] for variable in variables]


def _unnumbered(weights: list[list[Any]]) -> list[list[Any]]:
    """Names and shapes without the numbers that Keras gives to layers, which a gain's name has."""
    return [[re.sub(r"_\d+", "", name), shape] for name, shape in weights]


def _require_nonzero_results(
    name: str, conditioner: Conditioner | None, kernels: list[Any]
) -> None:
    """Raises an error if a method would make a kernel, or its update, zero."""
    if conditioner is None:
        return
    for kernel in kernels:
        if _matrix_shape(kernel.layout, kernel.variable.shape)[1] > 1:
            continue
        # A method that centers rows leaves nothing of a single column.
        result = Reparametrization(conditioner).apply(
            ops.ones(kernel.variable.shape), kernel.layout
        )
        if not np.any(ops.convert_to_numpy(result)):
            raise ValueError(
                f"Expected `{name}` to be a method that does not center rows, since the kernel "
                f"{kernel.variable.path} has one input and would become zero. Received: "
                f"{name}={conditioner}. Use `center=False`, another method, or `layers=` to leave "
                "the layer out."
            )


def _layout(kernel: dict[str, Any]) -> KernelLayout:
    return KernelLayout(kernel["unit_axes"], kernel["matrix_axes"], kernel["blocks"])


def _require_optimizer(optimizer: Any) -> keras.optimizers.Optimizer:
    found = optimizer
    if isinstance(optimizer, str) or (isinstance(optimizer, dict) and "class_name" in optimizer):
        found = keras.optimizers.get(optimizer)
    if not isinstance(found, keras.optimizers.Optimizer):
        raise TypeError(
            "Expected `optimizer` to be a Keras optimizer, or a name or config of one. Received: "
            f"optimizer={optimizer!r} (of type {type(optimizer).__name__})"
        )
    if isinstance(found, ConditionedOptimizer):
        raise ValueError(
            "Expected `optimizer` to be a plain optimizer. Received: one that "
            "`condition_optimizer()` made. Give both conditioners in one call."
        )
    if type(found).apply is not keras.optimizers.Optimizer.apply:
        raise ValueError(
            "Expected `optimizer` to make updates itself. Received: an optimizer of type "
            f"{type(found).__name__}, whose own `apply()` may leave them to others. Condition "
            f"these, as in `{type(found).__name__}(condition_optimizer(…))`."
        )
    return found


def _around(
    optimizer: keras.optimizers.Optimizer,
    arguments: dict[str, Any],
    variables: list[Any] | None = None,
) -> keras.optimizers.Optimizer:
    """A new optimizer with the config of another one, and conditioning."""
    # The public property calls a function, and returns its value.
    rate = vars(optimizer).get("_learning_rate")
    is_function = callable(rate) and not isinstance(rate, keras.Variable)
    serialized = keras.optimizers.serialize(_at_constant_rate(optimizer, is_function))
    config = serialized.pop("config")
    if is_function:
        config["learning_rate"] = rate
    changes_updates = arguments["update_conditioner"] is not None
    cls = _class_around(type(optimizer), changes_updates)  # type: ignore[arg-type]
    # Not by the mixin's own `from_config()`.
    made = super(ConditionedOptimizer, cls).from_config(config)
    # Not by assignment, upon which Keras would look for variables in it.
    vars(made)["_conditioning"] = _Conditioning(serialized, variables=variables, **arguments)
    share_weight_decay(made, optimizer)
    return made


def _at_constant_rate(
    optimizer: keras.optimizers.Optimizer, is_function: bool
) -> keras.optimizers.Optimizer:
    """The optimizer with a number in place of a function, which may have no config."""
    if not is_function:
        return optimizer
    # Not by `copy`, which saves and loads an optimizer.
    copied = object.__new__(type(optimizer))
    vars(copied).update(vars(optimizer))
    vars(copied)["_learning_rate"] = keras.Variable(0.0)
    return copied


@functools.cache
def _class_around(cls: Any, changes_updates: bool) -> Any:
    """A class that extends an optimizer's class, and is registered as the mixin is."""
    base = updating_one_by_one(cls) if changes_updates else cls
    made = type(f"Conditioned{base.__name__}", (ConditionedOptimizer, base), {})
    register = keras.saving.register_keras_serializable("keras_wcond", "ConditionedOptimizer")
    register(made)
    # The name stands for the mixin again, whose `from_config()` finds the class to extend.
    register(ConditionedOptimizer)
    return made
