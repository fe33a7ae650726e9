"""The initializer of conditioned weights."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_wcond.conditioners.conditioner import ConditionerLike
from keras_wcond.gains import FixedGain
from keras_wcond.linalg.arrays import Axes, Dtype, Tensor
from keras_wcond.reparametrization import TensorConditioning


@keras.saving.register_keras_serializable(package="keras_wcond")
class ConditionedInitializer(TensorConditioning, keras.initializers.Initializer):
    """Conditions the initial weights of a layer, drawn by another initializer.

    Training then proceeds as in a plain layer. With `gain`, a plain layer also starts at the
    scale of a conditioned one. This is the scale-matched baseline, which separates the effect of
    conditioning from the effect of scale. As with Keras' own initializers, an instance draws the
    same values in every call, so that every layer needs an instance of its own.

    `W₀ = gain · C(W),  W drawn by the initializer`

    Args:
        initializer: Name, config or instance of the `keras.initializers.Initializer` that draws
            W. Defaults to `"glorot_uniform"`.
        kernel_conditioner: Name, config, instance or subclass of `Conditioner`, or a list of
            these. Defaults to `"row_equilibration"`.
        gain: Positive number, or `"kernel_norm"` to keep the Frobenius norm of W. Defaults to
            `1.0`.
        unit_axes: Integer or tuple of integers. The axes that index output units. Use -1
            for the kernels of `Dense` and `Conv1D/2D/3D` layers, -2 for those of
            transposed convolutions, `(-2, -1)` for the depthwise kernels of
            `DepthwiseConv1D/2D` and `SeparableConv1D/2D`, and 0 for embeddings. An
            initializer receives a shape without its layer, and cannot find the axes itself.
            Defaults to `-1`.
        matrix_axes: Integer or tuple of integers, a subset of `unit_axes`. The axes that index
            whole matrices, for methods that work on whole matrices. Use -2 for depthwise
            kernels. Defaults to `()`.
        blocks: Integer. The number of matrices side by side along the last unit axis, for
            methods that work on whole matrices. Use the number of groups of a convolution, or
            4 for the gates of an LSTM. Defaults to `1`.
        conditioner: Earlier name of `kernel_conditioner`, to be given in its place. Defaults to
            `None`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If no method has the name of `kernel_conditioner`, if `kernel_conditioner` is
            None, or if another argument has an invalid value. On calls, if the axes do not fit
            the tensor.

    Examples:
        >>> initializer = ConditionedInitializer("glorot_uniform", gain=2.0)
        >>> kernel = keras.ops.convert_to_numpy(initializer((3, 4)))
        >>> print(np.linalg.norm(kernel, axis=0).round(3))
        [2. 2. 2. 2.]
    """

    def __init__(
        self,
        initializer: str | dict[str, Any] | Callable[..., Tensor] = "glorot_uniform",
        kernel_conditioner: ConditionerLike = "row_equilibration",
        gain: FixedGain = 1.0,
        unit_axes: Axes = -1,
        matrix_axes: Axes = (),
        blocks: int = 1,
        conditioner: ConditionerLike = None,
    ) -> None:
        super().__init__(kernel_conditioner, gain, unit_axes, matrix_axes, blocks, conditioner)
        self.initializer = keras.initializers.get(initializer)

    def __call__(self, shape: Sequence[int], dtype: Dtype | None = None) -> Tensor:
        """The conditioned initial weights.

        Args:
            shape: Sequence of integers. The shape of the weights, with at least two axes.
            dtype: String. A floating-point dtype, or None for that of the initializer. Defaults
                to `None`.

        Returns:
            Tensor of the given shape and dtype.
        """
        return self.conditioned(self.initializer(shape, dtype=dtype))

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.initializer)
        return {"initializer": initializer, **super().get_config()}
