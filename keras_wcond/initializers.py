from collections.abc import Sequence
from typing import Any

import keras

from keras_wcond.gains import FixedGain
from keras_wcond.reparametrization import TensorConditioning


@keras.saving.register_keras_serializable(package="keras_wcond")
class ConditionedInitializer(TensorConditioning, keras.initializers.Initializer):
    """Conditions what another initializer draws, at the start and never again.

    With `gain`, it also starts a plain layer at the scale of a conditioned one, which is
    the baseline that tells the effect of conditioning from the effect of scale. As with
    Keras' own initializers, one instance draws the same values whenever it is called: give
    every layer an instance of its own.

    `W₀ = gain · C(W),  W drawn by the initializer`

    Args:
        initializer: The `keras.initializers.Initializer` that draws, by name, config or
            instance.
        kernel_conditioner: Name, config or instance of a conditioner.
        gain: Positive number, or `"kernel_norm"` to keep the Frobenius norm of the draw.
        unit_axes: Integer or tuple of integers, the axes that index output units: -1 in
            the kernels of `Dense` and `Conv1D/2D/3D` layers, -2 in those of transposed
            convolutions.
        matrix_axes: Integer or tuple of integers among the unit axes, for methods that look
            at whole matrices: the axes that index matrices, -2 in depthwise kernels.
        blocks: Integer, for such methods: the number of matrices that lie side by side
            along the last unit axis, the groups of a convolution or the 4 gates of an LSTM.
        conditioner: Another name of `kernel_conditioner`, which earlier versions took.

    Example:

    >>> initializer = ConditionedInitializer("glorot_uniform", gain=2.0)
    >>> kernel = keras.ops.convert_to_numpy(initializer((3, 4)))
    >>> print(np.linalg.norm(kernel, axis=0).round(3))
    [2. 2. 2. 2.]
    """

    def __init__(
        self,
        initializer: Any = "glorot_uniform",
        kernel_conditioner: Any = "row_equilibration",
        gain: FixedGain = 1.0,
        unit_axes: int | tuple[int, ...] = -1,
        matrix_axes: int | tuple[int, ...] = (),
        blocks: int = 1,
        conditioner: Any = None,
    ):
        super().__init__(kernel_conditioner, gain, unit_axes, matrix_axes, blocks, conditioner)
        self.initializer = keras.initializers.get(initializer)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        return self.conditioned(self.initializer(shape, dtype=dtype))

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.initializer)
        return {"initializer": initializer, **super().get_config()}
