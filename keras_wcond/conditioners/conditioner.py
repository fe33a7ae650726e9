from typing import Any

from keras_wcond.arrays import cast
from keras_wcond.kernels import KernelLayout
from keras_wcond.norms import widened


class Conditioner:
    """Base class of the conditioning methods.

    A conditioner is a pure, differentiable function of a kernel: no variables, no random
    numbers, no assignment, the same in training and inference. One object serves a
    layer's `kernel_conditioner`, a `WeightConditioning` constraint and a
    `ConditionedInitializer` alike.

    To write a method of your own, subclass this, implement `condition()`, add
    `get_config()` where the constructor takes arguments, and register the class with
    `keras.saving.register_keras_serializable()` so that models with it can be loaded.

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
    """

    has_unit_rows: bool = False

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "condition" in vars(cls):
            # The short cuts of a class it extends compute what that class does, not what it does.
            for name in {"condition_kernel", "product"} - set(vars(cls)):
                setattr(cls, name, getattr(Conditioner, name))

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
        conditioned = self.in_full_precision(widened(kernel), KernelLayout.of(unit_axes))
        return cast(conditioned, kernel.dtype)

    def in_full_precision(self, kernel: Any, layout: KernelLayout) -> Any:
        """As calling the conditioner, of a kernel that is in float32 or wider already."""
        conditioned = self.condition_kernel(kernel, layout)
        if tuple(conditioned.shape) != tuple(kernel.shape):
            raise ValueError(
                f"Expected `{type(self).__name__}.condition_kernel()` to return a kernel of the "
                f"shape it is given, {tuple(kernel.shape)}. Received: {tuple(conditioned.shape)}"
            )
        return conditioned

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
