"""The base class of the conditioning methods."""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
from keras import ops

from keras_wcond import backends
from keras_wcond.kernels.layout import KernelLayout
from keras_wcond.linalg.arrays import Axes, Tensor, cast, tensor, widened

# The layout of a stack of matrices, whose unit axes are those of the matrices and of their rows.
_STACK = KernelLayout(unit_axes=(0, 1), matrix_axes=0)


class Conditioner:
    """Base class of the conditioning methods.

    A conditioner is a pure, differentiable function of a kernel. It has no variables, draws no
    random numbers, assigns nothing, and computes the same in training and in inference. The same
    object can be the `kernel_conditioner` of a layer, of a `WeightConditioning` constraint and of
    a `ConditionedInitializer`.

    To write your own method, subclass `Conditioner` and implement `condition()`. Add
    `get_config()` if the constructor takes arguments. Register the class with
    `keras.saving.register_keras_serializable()`, so that models with it can be loaded.

    `condition()`, `condition_kernel()` and `product()` are three forms of one function. A
    subclass that overrides `condition()` or `condition_kernel()` does not inherit the other
    forms, `has_unit_rows`, `keeps_norm` or `works_on_arrays`, because they belong to the function
    of its base class. A subclass that overrides `product()` must also define one of the other two
    forms. Otherwise its definition raises a `TypeError`.

    Examples:
        >>> class SignConditioner(Conditioner):
        ...     def condition(self, matrices):
        ...         return keras.ops.sign(matrices)
        >>> kernel = np.array([[2, -3]], "float32")
        >>> print(keras.ops.convert_to_numpy(SignConditioner()(kernel)))
        [[ 1. -1.]]

    Attributes:
        has_unit_rows: Boolean. Whether the rows of the result have a mean square norm of 1 for
            every kernel, the scale to which `gain="auto"` applies. The results of other methods
            are scaled to it first. Defaults to `False`.
        keeps_norm: Boolean. Whether the result has the Frobenius norm of the kernel, so that
            `gain="kernel_norm"` has nothing to do. Defaults to `False`.
        works_on_arrays: Boolean. Whether the method accepts NumPy arrays as well, and returns
            an array of the same dtype. Reports and folding then need no compilation for
            each kernel shape. Other methods receive tensors. Defaults to `False`.
        largest_product: Float. The number of rows of inputs, for each input feature, up to which
            `product()` costs less than the product with the formed kernel. Defaults to `2`.
        changes: String. The property of a kernel that the method changes: `"scale"`,
            `"row norms"`, `"column norms"`, `"row and column norms"`, `"row means and norms"` or
            `"spectrum"`. Defaults to `"spectrum"`.
    """

    has_unit_rows: bool = False
    keeps_norm: bool = False
    works_on_arrays: bool = False
    largest_product: ClassVar[float] = 2.0
    changes: ClassVar[str] = "spectrum"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _drop_inherited_forms(cls)

    def __call__(self, kernel: Tensor, unit_axes: Axes | KernelLayout = -1) -> Tensor:
        """The conditioned kernel.

        Args:
            kernel: Tensor, variable or NumPy array of a floating-point dtype, with at least two
                axes.
            unit_axes: Integer, tuple of integers or `KernelLayout`. The axes that index
                output units: -1 in the kernel of a `Dense` or `Conv2D` layer, -2 in the kernel
                of a `Conv2DTranspose` layer. A `KernelLayout` also separates groups, gates and
                channels, for methods that work on whole matrices. Defaults to `-1`.

        Returns:
            Tensor of the kernel's shape and dtype, computed in float32 or wider. A `ValueError`
            is raised if `unit_axes` does not fit the kernel's shape, a `TypeError` if the
            kernel's dtype is not a floating-point one.
        """
        wide = widened(tensor(kernel))
        with backends.without_autocast():
            conditioned = self.condition_kernel(wide, KernelLayout.of(unit_axes))
        self.require_shape(conditioned, wide)
        return cast(conditioned, kernel.dtype)

    def require_shape(self, conditioned: Tensor, kernel: Tensor) -> None:
        """Raises a `ValueError` if `condition_kernel()` changed the kernel's shape."""
        if conditioned.shape != kernel.shape:
            raise ValueError(
                f"Expected `{type(self).__name__}.condition_kernel()` to return a kernel of the "
                f"shape it is given, {tuple(kernel.shape)}. Received: {tuple(conditioned.shape)}"
            )

    def condition_kernel(self, kernel: Tensor, layout: KernelLayout) -> Tensor:
        """The conditioned kernel, by default from `condition()` of the kernel's matrices.

        Override this in a method that needs only the norms of rows, to avoid the conversion of
        the kernel to matrices and back.

        Args:
            kernel: Tensor in float32 or wider. A NumPy array if `works_on_arrays`.
            layout: `KernelLayout`. The reading of the kernel as matrices.

        Returns:
            Tensor or array of the same shape and dtype.

        Raises:
            ValueError: If `layout` does not fit the kernel's shape, or if `condition()` returns
                another shape.
        """
        matrices = layout.to_matrices(kernel)
        conditioned = self.condition(matrices)
        if tuple(conditioned.shape) != tuple(matrices.shape):
            raise ValueError(
                f"Expected `{type(self).__name__}.condition()` to return matrices of the shape "
                f"it is given, {tuple(matrices.shape)}. Received: {tuple(conditioned.shape)}"
            )
        return layout.from_matrices(conditioned, kernel.shape)

    def condition_stack(self, matrices: Tensor) -> Tensor:
        """The conditioned matrices, from `condition()` or `condition_kernel()`.

        Args:
            matrices: Tensor or NumPy array of shape `(matrices, rows, columns)`.

        Returns:
            Tensor or array of the same shape and dtype. A method that does not work on arrays
            returns a tensor.
        """
        if isinstance(matrices, np.ndarray) and not self.works_on_arrays:
            matrices = ops.convert_to_tensor(matrices)
        return self.condition_kernel(matrices, _STACK)

    def product(
        self,
        inputs: Tensor,
        kernel: Tensor,
        gain: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor | None:
        """`inputs · gain · C(kernel) + bias`, computed without forming `C(kernel)`.

        Args:
            inputs: Tensor of shape `(rows, inputs)`.
            kernel: Tensor of shape `(inputs, units)`, in the dtype of the inputs, float32 or
                float64.
            gain: Tensor of shape `()` or `(units,)` and of the same dtype, or None for a gain of
                1. Defaults to `None`.
            bias: Tensor of shape `(units,)` and of the same dtype, or None. Defaults to `None`.

        Returns:
            Tensor of shape `(rows, units)`, or None if the method or the backend has no such
            product.
        """
        return None

    def condition(self, matrices: Tensor) -> Tensor:
        """The conditioned matrices, each computed from that matrix alone.

        Args:
            matrices: Tensor of shape `(matrices, rows, columns)`, one row per output
                unit, in float32 or wider. A NumPy array if `works_on_arrays`.

        Returns:
            Tensor or array of the same shape and dtype.

        Raises:
            NotImplementedError: If the subclass does not implement it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `condition(matrices)`, which returns the "
            "conditioned matrices."
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, used for serialization and comparison.

        Returns:
            Dict from the names of the arguments to values that Keras can serialize.

        Raises:
            NotImplementedError: If the constructor takes arguments and the subclass does not
                implement `get_config()`.
        """
        parameters = inspect.signature(type(self).__init__).parameters.values()
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        names = [each.name for each in parameters if each.kind not in variadic][1:]
        if names:
            raise NotImplementedError(
                f"Expected {type(self).__qualname__}, whose constructor takes {names}, to have a "
                "`get_config` that returns them as a dict. Without it, a copy or a file would "
                "lose them."
            )
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Conditioner":
        """The conditioner with the arguments that `get_config()` returned."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.get_config() == self.get_config()

    def __hash__(self) -> int:
        return hash((type(self), repr(sorted(self.get_config().items()))))

    def __repr__(self) -> str:
        """The class with the arguments that differ from its defaults."""
        parameters = inspect.signature(type(self).__init__).parameters
        arguments = [
            f"{name}={value!r}"
            for name, value in self.get_config().items()
            if name not in parameters or value != parameters[name].default
        ]
        return f"{type(self).__name__}({', '.join(arguments)})"


# What an argument such as `kernel_conditioner` accepts: the name of a method, a config from
# `serialize()`, an instance, a subclass, a list of these, or None.
ConditionerLike: TypeAlias = (
    str | dict[str, Any] | Conditioner | type[Conditioner] | Sequence["ConditionerLike"] | None
)


def _drop_inherited_forms(cls: type[Conditioner]) -> None:
    """Replaces inherited forms that are older than the class's function by the default forms."""
    names = ("condition", "condition_kernel", "product", "scale", "condition_along")
    matrices, kernel, product, *others = (_definer(cls, name) for name in names)
    newest = min(matrices, kernel, *others)
    if product < newest < len(cls.__mro__):
        raise TypeError(
            "Expected a conditioner that overrides `product()` to define `condition()` or "
            f"`condition_kernel()` as well. Received: {cls.__name__}, whose `product()` would "
            "replace that of another class in Dense layers only. Define the function itself; if "
            f"it is unchanged, write `condition = {cls.__mro__[1].__name__}.condition`."
        )
    for name, is_older in (("condition_kernel", matrices < kernel), ("product", newest < product)):
        if is_older:
            setattr(cls, name, vars(Conditioner)[name])
    for attribute in ("has_unit_rows", "keeps_norm", "works_on_arrays"):
        if newest < next(i for i, base in enumerate(cls.__mro__) if attribute in vars(base)):
            setattr(cls, attribute, False)


def _definer(cls: type[Conditioner], name: str) -> int:
    """The position in the MRO of the class that defines a form, or its length for the default."""
    for index, base in enumerate(cls.__mro__):
        if name in vars(base):
            is_default = vars(base)[name] is vars(Conditioner).get(name)
            return len(cls.__mro__) if is_default else index
    return len(cls.__mro__)
