import inspect
from typing import Any, ClassVar

import numpy as np
from keras import ops

from keras_wcond import backends
from keras_wcond.kernels.layout import KernelLayout
from keras_wcond.linalg.arrays import cast, tensor, widened

# A stack of matrices read as a kernel: the axes of its matrices and their rows are unit axes.
_STACK = KernelLayout(unit_axes=(0, 1), matrix_axes=0)


class Conditioner:
    """Base class of the conditioning methods.

    A conditioner is a pure, differentiable function of a kernel: no variables, no random
    numbers, no assignment, the same in training and inference. One object serves a
    layer's `kernel_conditioner`, a `WeightConditioning` constraint and a
    `ConditionedInitializer` alike.

    To write a method of your own, subclass this, implement `condition()`, add
    `get_config()` where the constructor takes arguments, and register the class with
    `keras.saving.register_keras_serializable()` so that models with it can be loaded.

    `condition()`, `condition_kernel()` and `product()` are three forms of one function. A
    subclass that overrides `condition()` or `condition_kernel()` does not inherit the other
    forms, `has_unit_rows` or `works_on_arrays`, since they belong to the function of the class
    it extends. A
    subclass that overrides `product()` must define one of the other two as well.

    Example:

    >>> class SignConditioner(Conditioner):
    ...     def condition(self, matrices):
    ...         return keras.ops.sign(matrices)
    >>> kernel = np.array([[2, -3]], "float32")
    >>> print(keras.ops.convert_to_numpy(SignConditioner()(kernel)))
    [[ 1. -1.]]

    Attributes:
        has_unit_rows: Boolean. Whether rows come out with a mean square norm of 1 whatever
            the kernel, which is the scale that `gain="auto"` multiplies. Other methods'
            results are given it first.
        works_on_arrays: Boolean. Whether the method also computes with NumPy arrays, and
            returns one of the same dtype. Reports and folding then need no compilation for
            each shape of kernel. Others are given tensors.
        changes: String. What the method changes of a kernel: `"scale"`, `"row norms"`,
            `"column norms"`, `"row and column norms"`, `"row means and norms"` or
            `"spectrum"`.
    """

    has_unit_rows: bool = False
    works_on_arrays: bool = False
    changes: ClassVar[str] = "spectrum"

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        _drop_inherited_forms(cls)

    def __call__(self, kernel: Any, unit_axes: "int | tuple[int, ...] | KernelLayout" = -1) -> Any:
        """The conditioned kernel.

        Args:
            kernel: Tensor or variable with at least two axes.
            unit_axes: Integer, tuple of integers or `KernelLayout`. The axes that index
                output units: -1 in the kernel of a `Dense` or `Conv2D` layer, -2 in that
                of a `Conv2DTranspose`. A `KernelLayout` also tells groups, gates and
                channels apart, for methods that look at whole matrices.

        Returns:
            Tensor of the kernel's shape and dtype, computed in float32 or wider.
        """
        wide = widened(tensor(kernel))
        with backends.without_autocast():
            conditioned = self.condition_kernel(wide, KernelLayout.of(unit_axes))
        self.require_shape(conditioned, wide)
        return cast(conditioned, kernel.dtype)

    def require_shape(self, conditioned: Any, kernel: Any) -> None:
        """Raises where `condition_kernel()` returned another shape than that of its kernel."""
        if conditioned.shape != kernel.shape:
            raise ValueError(
                f"Expected `{type(self).__name__}.condition_kernel()` to return a kernel of the "
                f"shape it is given, {tuple(kernel.shape)}. Received: {tuple(conditioned.shape)}"
            )

    def condition_kernel(self, kernel: Any, layout: KernelLayout) -> Any:
        """The conditioned kernel: by default, `condition()` of the matrices it is made of.

        A method that needs nothing but norms of rows takes them where they lie, which saves
        turning the kernel into matrices and back.

        Args:
            kernel: Tensor in float32 or wider.
            layout: Which axes of the kernel are output units.

        Returns:
            Tensor of the same shape and dtype.
        """
        matrices = layout.to_matrices(kernel)
        conditioned = self.condition(matrices)
        if tuple(conditioned.shape) != tuple(matrices.shape):
            raise ValueError(
                f"Expected `{type(self).__name__}.condition()` to return matrices of the shape "
                f"it is given, {tuple(matrices.shape)}. Received: {tuple(conditioned.shape)}"
            )
        return layout.from_matrices(conditioned, kernel.shape)

    def condition_stack(self, matrices: Any) -> Any:
        """The conditioned matrices, by whichever form the method defines.

        Args:
            matrices: Tensor or NumPy array of shape `(matrices, rows, columns)`.

        Returns:
            Tensor or array of the same shape and dtype. A method that does not work on arrays
            returns a tensor.
        """
        if isinstance(matrices, np.ndarray) and not self.works_on_arrays:
            matrices = ops.convert_to_tensor(matrices)
        return self.condition_kernel(matrices, _STACK)

    def product(self, inputs: Any, kernel: Any, gain: Any = None, bias: Any = None) -> Any:
        """`inputs · gain · C(kernel) + bias`, computed without forming `C(kernel)`.

        Args:
            inputs: Tensor of shape `(rows, inputs)`.
            kernel: Tensor of shape `(inputs, units)`, in the dtype of the inputs, float32 or
                float64.
            gain: None for 1, or a tensor of shape `()` or `(units,)`, of the same dtype.
            bias: None, or a tensor of shape `(units,)`, of the same dtype.

        Returns:
            Tensor of shape `(rows, units)`, or None from a method that knows no such way.
        """
        return None

    def condition(self, matrices: Any) -> Any:
        """The conditioned matrices.

        Args:
            matrices: Tensor of shape `(matrices, rows, columns)`, one row per output
                unit, in float32 or wider.

        Returns:
            Tensor of the same shape and dtype.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `condition(matrices)`, which returns the "
            "conditioned matrices."
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for serialization and comparison."""
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
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.get_config() == self.get_config()

    def __hash__(self) -> int:
        return hash((type(self), repr(sorted(self.get_config().items()))))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


def _drop_inherited_forms(cls):
    """Gives a class the base class's form wherever its own function is newer than the form."""
    matrices, kernel, scale, product = (
        _definer(cls, name) for name in ("condition", "condition_kernel", "scale", "product")
    )
    newest = min(matrices, kernel, scale)
    if product < newest < len(cls.__mro__):
        raise TypeError(
            "Expected a conditioner that overrides `product()` to define `condition()` or "
            f"`condition_kernel()` as well. Received: {cls.__name__}, whose `product()` would "
            "replace that of another class in Dense layers only. Define the function itself; if "
            f"it is unchanged, write `condition = {cls.__mro__[1].__name__}.condition`."
        )
    if matrices < kernel:
        cls.condition_kernel = Conditioner.condition_kernel
    if newest < product:
        cls.product = Conditioner.product
    for attribute in ("has_unit_rows", "works_on_arrays"):
        if newest < next(i for i, base in enumerate(cls.__mro__) if attribute in vars(base)):
            setattr(cls, attribute, False)


def _definer(cls, name):
    """The position of the class that defines a form, or that past the last for the default."""
    for index, base in enumerate(cls.__mro__):
        if name in vars(base):
            is_default = vars(base)[name] is vars(Conditioner).get(name)
            return len(cls.__mro__) if is_default else index
    return len(cls.__mro__)
