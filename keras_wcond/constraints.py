from typing import Any

import keras

from keras_wcond.reparametrization import TensorConditioning


@keras.saving.register_keras_serializable(package="keras_wcond")
class WeightConditioning(TensorConditioning, keras.constraints.Constraint):
    """Conditions a layer's weights after each update of the optimizer.

    The layer then holds conditioned weights and is otherwise the plain Keras layer: no
    cost in the forward pass, nothing to fold. In contrast to a conditioned layer, no
    gradient passes through the conditioning: this is projected gradient descent, and
    weights are only conditioned from the first update on. Combine it with
    `ConditionedInitializer` to start conditioned as well.

    `W ← gain · C(W)` after each update.

    Args:
        kernel_conditioner: Name, config or instance of a conditioner.
        gain: Positive number, or `"kernel_norm"` to keep the Frobenius norm that the
            weights have after the update.
        unit_axes: Integer or tuple of integers, the axes that index output units. Use -1
            for the kernels of `Dense` and `Conv1D/2D/3D` layers, -2 for those of
            transposed convolutions, `(-2, -1)` for the depthwise kernels of
            `DepthwiseConv1D/2D` and `SeparableConv1D/2D`, 0 for embeddings. A constraint
            sees a tensor and not its layer, so it cannot know.
        matrix_axes: Integer or tuple of integers among the unit axes, for methods that look
            at whole matrices: the axes that index matrices, -2 in depthwise kernels.
        blocks: Integer, for such methods: the number of matrices that lie side by side
            along the last unit axis, the groups of a convolution or the 4 gates of an LSTM.
        conditioner: Another name of `kernel_conditioner`, which earlier versions took.

    Example:

    >>> layer = keras.layers.Dense(4, kernel_constraint=WeightConditioning())
    >>> model = keras.Sequential([layer])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((2, 3)), np.ones((2, 4)), verbose=0)
    >>> print(np.linalg.norm(layer.kernel.numpy(), axis=0).round(3))
    [1. 1. 1. 1.]
    """

    def __call__(self, w: Any) -> Any:
        return self.conditioned(w)
