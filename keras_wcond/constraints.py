"""The constraint on conditioned weights."""

import keras

from keras_wcond.linalg.arrays import Tensor
from keras_wcond.reparametrization import TensorConditioning


@keras.saving.register_keras_serializable(package="keras_wcond")
class WeightConditioning(TensorConditioning, keras.constraints.Constraint):
    """Conditions a layer's weights after each update of the optimizer.

    The layer then holds conditioned weights and is otherwise the plain Keras layer. It has no
    additional cost in the forward pass, and nothing to fold. In contrast to a conditioned layer,
    no gradient passes through the conditioning. The method is projected gradient descent, and
    weights are not conditioned before the first update. Combine it with
    `ConditionedInitializer` to condition the initial weights as well.

    `W ← gain · C(W)` after each update.

    Args:
        kernel_conditioner: Name, config, instance or subclass of `Conditioner`, or a list of
            these. Defaults to `"row_equilibration"`.
        gain: Positive number, or `"kernel_norm"` to keep the Frobenius norm of the weights
            after the update. Defaults to `1.0`.
        unit_axes: Integer or tuple of integers. The axes that index output units. Use -1
            for the kernels of `Dense` and `Conv1D/2D/3D` layers, -2 for those of
            transposed convolutions, `(-2, -1)` for the depthwise kernels of
            `DepthwiseConv1D/2D` and `SeparableConv1D/2D`, and 0 for embeddings. A
            constraint receives a tensor without its layer, and cannot find the axes itself.
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
        >>> layer = keras.layers.Dense(4, kernel_constraint=WeightConditioning())
        >>> model = keras.Sequential([layer])
        >>> model.compile("sgd", "mse")
        >>> history = model.fit(np.ones((2, 3)), np.ones((2, 4)), verbose=0)
        >>> print(np.linalg.norm(layer.kernel.numpy(), axis=0).round(3))
        [1. 1. 1. 1.]
    """

    def __call__(self, w: Tensor) -> Tensor:
        """The conditioned weights.

        Args:
            w: Tensor or variable with at least two axes.

        Returns:
            Tensor of the same shape and dtype.
        """
        return self.conditioned(w)
