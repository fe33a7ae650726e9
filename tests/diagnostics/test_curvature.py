import keras
import numpy as np
import pytest

import keras_wcond
from keras_wcond import ConditionedConv2D, ConditionedDense, loss_curvature, loss_lines
from keras_wcond.conditioners import METHODS
from keras_wcond.diagnostics.curvature import curvature_of
from keras_wcond.diagnostics.gradient_check import require_gradients_of_values
from keras_wcond.diagnostics.lanczos import lanczos
from keras_wcond.linalg.held_constant import exact_derivatives
from tests.helpers import jacobian, normal, to_numpy

MATRICES = ("hessian", "gauss_newton")


def network(kind):
    keras.utils.set_random_seed(1)
    hidden = {
        "plain": lambda: [keras.layers.Dense(5, activation="tanh")],
        "rows": lambda: [ConditionedDense(5, activation="tanh", gain="auto")],
        "newton": lambda: [
            ConditionedDense(5, "tanh", kernel_conditioner="newton_orthogonalization")
        ],
        "convolution": lambda: [
            keras.layers.Reshape((2, 2, 1)),
            ConditionedConv2D(3, 2, activation="softplus", gain="kernel_norm"),
            keras.layers.Flatten(),
        ],
    }[kind]()
    return keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(3)])


def data():
    return 2.0 * normal(12, 4), np.random.default_rng(2).integers(0, 3, 12)


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dense_matrix(model, x, y, matrix):
    """The whole matrix in float64, by differentiating everything in everything."""
    variables = model.trainable_variables
    fixed = [variable.value for variable in model.non_trainable_variables]
    start = np.concatenate([np.ravel(keras.ops.convert_to_numpy(v.value)) for v in variables])

    def outputs(vector):
        values, begin = [], 0
        for variable in variables:
            end = begin + int(np.prod(variable.shape))
            values.append(keras.ops.reshape(vector[begin:end], variable.shape))
            begin = end
        return model.stateless_call(values, fixed, x, training=False)[0]

    def loss(vector):
        return LOSS(y, outputs(vector))

    if matrix == "hessian":
        return np.asarray(jacobian(loss, start, order=2), "float64")
    first = np.asarray(jacobian(outputs, start), "float64")
    at = keras.ops.convert_to_numpy(outputs(keras.ops.convert_to_tensor(start))).astype("float64")
    # The Hessian of the mean cross-entropy in the logits, sample by sample.
    shares = np.exp(at - at.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return sum(
        j.T @ (np.diag(p) - np.outer(p, p)) @ j for j, p in zip(first, shares, strict=True)
    ) / len(at)


@pytest.mark.parametrize("kind", ["newton", "convolution"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_extremes_are_those_of_the_dense_matrix(kind, matrix):
    model, (x, y) = network(kind), data()
    with exact_derivatives():
        expected = np.linalg.eigvalsh(dense_matrix(model, x, y, matrix))
    result = loss_curvature(model, x, y, LOSS, matrix=matrix)
    norm = np.abs(expected).max()
    np.testing.assert_allclose(result.largest_eigenvalue, expected[-1], rtol=0.01)
    # The smallest of a singular matrix is zero but for rounding.
    np.testing.assert_allclose(result.smallest_eigenvalue, expected[0], rtol=0.01, atol=1e-5 * norm)
    np.testing.assert_allclose(result.norm, norm, rtol=0.01)
    assert abs(result.largest_eigenvalue - expected[-1]) <= result.largest_error + 1e-5 * norm
    smallest = np.abs(expected).min()
    if smallest > 1e-4 * norm:
        # As many iterations were allowed as there are weights.
        np.testing.assert_allclose(result.condition_number, norm / smallest, rtol=0.05)
    assert result.condition_number > 1.0
    assert result.matrix == matrix


def test_batches_change_nothing():
    model, (x, y) = network("rows"), data()
    whole = loss_curvature(model, x, y, LOSS)
    parts = loss_curvature(model, x, y, LOSS, batch_size=5)
    np.testing.assert_allclose(parts.largest_eigenvalue, whole.largest_eigenvalue, rtol=1e-4)
    np.testing.assert_allclose(parts.smallest_eigenvalue, whole.smallest_eigenvalue, rtol=1e-3)


def test_loss_is_that_of_the_compiled_model_and_the_model_is_left_alone():
    model, (x, y) = network("plain"), data()
    before = model.get_weights()
    model.compile("sgd", LOSS)
    result = loss_curvature(model, x, y)
    other = loss_curvature(model, x, y, LOSS)
    assert result == other
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_frozen_weights_are_left_out():
    model, (x, y) = network("plain"), data()
    model.layers[0].trainable = False
    result = loss_curvature(model, x, y, LOSS)
    # 5 · 3 + 3 parameters, in which the loss is convex.
    assert result.iterations <= 18
    assert result.smallest_eigenvalue >= -1e-5 * result.norm


def test_few_iterations_are_told_as_not_converged():
    model, (x, y) = network("plain"), data()
    result = loss_curvature(model, x, y, LOSS, iterations=2)
    assert not result.converged
    assert result.iterations == 2
    assert result.largest_error > 1e-3 * result.largest_eigenvalue


def test_arguments_are_checked():
    model, (x, y) = network("plain"), data()
    with pytest.raises(ValueError, match=r"Expected a loss, or a compiled model.*loss=None"):
        loss_curvature(model, x, y)
    with pytest.raises(ValueError, match=r"'hessian' or 'gauss_newton'. Received: matrix='fisher'"):
        loss_curvature(model, x, y, LOSS, matrix="fisher")
    with pytest.raises(ValueError, match=r"same number of samples.*\[11, 12\] samples"):
        loss_curvature(model, x, y[:11], LOSS)
    with pytest.raises(ValueError, match=r"`tolerance` in \(0, 1\). Received: tolerance=0"):
        loss_curvature(model, x, y, LOSS, tolerance=0)
    with pytest.raises(ValueError, match=r"`iterations` to be a positive integer"):
        loss_curvature(model, x, y, LOSS, iterations=0)
    with pytest.raises(ValueError, match=r"trainable weights. Received: .*with 0 of them"):
        loss_curvature(keras.Sequential([keras.Input((4,))]), x, y, LOSS)


def test_condition_number_is_a_bound_where_it_is_not_exact():
    model, (x, y) = network("plain"), data()
    exact = loss_curvature(model, x, y, LOSS).condition_number
    for iterations in (1, 3, 10):
        result = loss_curvature(model, x, y, LOSS, iterations=iterations)
        assert 1.0 <= result.condition_number <= 1.01 * exact


def test_values_that_are_not_sure_do_not_count_as_small():
    ritz, errors = np.array([-1.0, 1e-9, 2.0]), np.array([0.0, 0.5, 0.0])
    assert curvature_of(ritz, errors, 3, 1e-3, "hessian").condition_number == pytest.approx(4.0)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("last", ["softmax", "sigmoid"])
def test_losses_of_probabilities(matrix, last):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation=last)])
    x, labels = data()
    y = keras.utils.to_categorical(labels, 3)
    loss = "categorical_crossentropy" if last == "softmax" else "binary_crossentropy"
    result = loss_curvature(model, x, y, loss, matrix=matrix)
    assert result.largest_eigenvalue > 0.0
    if matrix == "hessian":
        # For a single layer the two are what they are for its logits: J^T (∇²ℓ) J.
        plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        plain.set_weights(model.get_weights())
        of_logits = {
            "softmax": keras.losses.CategoricalCrossentropy(from_logits=True),
            "sigmoid": keras.losses.BinaryCrossentropy(from_logits=True),
        }[last]
        expected = loss_curvature(plain, x, y, of_logits, matrix="gauss_newton")
        np.testing.assert_allclose(
            result.largest_eigenvalue, expected.largest_eigenvalue, rtol=1e-3
        )


def test_loss_is_evaluated_as_in_training():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Embedding(9, 4, mask_zero=True), keras.layers.Dense(1)]
    )
    x = np.random.default_rng(0).integers(0, 3, (5, 6))
    y = normal(5, 6, 1)
    model.compile("sgd", "mse")
    expected = model.evaluate(x, y, verbose=0)
    lines = loss_lines(model, x, y, points=3, random_directions=0)
    np.testing.assert_allclose(lines.losses["gradient"][1], expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"outputs without a mask.*Take 'hessian'"):
        loss_curvature(model, x, y, matrix="gauss_newton")


def test_functions_as_losses_get_targets_of_the_outputs_shape():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    x, y = normal(12, 4), np.arange(12)
    model.compile("sgd", lambda a, b: keras.ops.mean(keras.ops.square(a - b), axis=-1))
    lines = loss_lines(model, x, y, points=3, random_directions=0)
    np.testing.assert_allclose(
        lines.losses["gradient"][1], model.evaluate(x, y, verbose=0), rtol=1e-5
    )


def test_non_finite_derivatives_are_named():
    model, (x, y) = network("plain"), data()
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"finite derivatives.*Look for NaN and infinity"):
        loss_curvature(model, x, y, LOSS)


def test_several_outputs_are_refused():
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(2)(inputs), keras.layers.Dense(2)(inputs)]
    model = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match=r"one tensor as its output. Received: .*2 outputs in a"):
        loss_curvature(model, normal(3, 4), normal(3, 2), "mse")


@pytest.mark.parametrize("size", [1, 2, 30])
def test_lanczos_ends_with_all_eigenvalues(size):
    random = np.random.default_rng(size)
    matrix = random.normal(size=(size, size))
    matrix = matrix + matrix.T
    *_, (ritz, errors) = lanczos(lambda vector: matrix @ vector, size, 100)
    np.testing.assert_allclose(ritz, np.linalg.eigvalsh(matrix), atol=1e-8)
    assert np.all(errors <= 1e-6)


def test_lanczos_bounds_its_errors_on_the_way():
    values = np.sort(np.random.default_rng(0).normal(size=200)) ** 3
    for ritz, errors in lanczos(lambda vector: values * vector, 200, 60):
        distances = np.abs(ritz[:, None] - values).min(axis=1)
        assert np.all(distances <= errors + 1e-9)


def test_lanczos_stops_in_an_invariant_subspace():
    matrix = np.diag([3.0, 3.0, 1.0, 1.0, 1.0])
    results = list(lanczos(lambda vector: matrix @ vector, 5, 100))
    assert len(results) == 2
    np.testing.assert_allclose(results[-1][0], [1.0, 3.0], rtol=1e-9)


def test_zero_matrix_has_no_curvature():
    ((ritz, errors),) = lanczos(lambda vector: 0.0 * vector, 7, 100)
    assert (ritz[0], errors[0]) == (0.0, 0.0)


def test_lines_start_from_the_weights(tmp_path):
    model, (x, y) = network("rows"), data()
    lines = loss_lines(model, x, y, LOSS, distance=0.2, points=5, random_directions=2)
    at_weights = float(keras.ops.convert_to_numpy(LOSS(y, model(x))))
    assert list(lines.losses) == ["gradient", "random 1", "random 2"]
    np.testing.assert_allclose(lines.distances, [-0.2, -0.1, 0.0, 0.1, 0.2])
    for losses in lines.losses.values():
        np.testing.assert_allclose(losses[2], at_weights, rtol=1e-5)
    # The slope along the gradient is steeper than along any other direction of that norm.
    slopes = {name: np.gradient(losses, 0.1)[2] for name, losses in lines.losses.items()}
    assert slopes["gradient"] > max(abs(slopes["random 1"]), abs(slopes["random 2"]))
    with pytest.raises(ValueError, match=r"`points` to be odd. Received: points=4"):
        loss_lines(model, x, y, LOSS, points=4)
    with pytest.raises(ValueError, match=r"`random_directions` to be 0 or more. Received: rando"):
        loss_lines(model, x, y, LOSS, random_directions=-1)
    figure = lines.plot(tmp_path / "lines.png")
    assert len(figure.axes[0].lines) == 4
    assert (tmp_path / "lines.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.__name__)
def test_curvature_is_that_of_the_value_whatever_the_gradient_holds_constant(method):
    """Against second differences of the loss along the weights, in float64 on the host."""
    layer = ConditionedDense(3, use_bias=False, kernel_conditioner=method())
    model = keras.Sequential([keras.Input((4,)), layer])
    x, y = normal(20, 4), normal(20, 3, seed=1)
    kernel = to_numpy(layer.kernel).astype("float64")

    def loss(w):
        conditioned = to_numpy(method().condition_stack(w.T[None]))[0].T
        return np.mean((x.astype("float64") @ conditioned - y) ** 2)

    size, step = kernel.size, 1e-4
    basis = step * np.eye(size).reshape(size, *kernel.shape)
    hessian = np.array(
        [
            [
                (loss(kernel + a + b) - loss(kernel + a - b) - loss(kernel - a + b)
                 + loss(kernel - a - b)) / (4.0 * step**2)
                for b in basis
            ]
            for a in basis
        ]
    )  # fmt: skip
    true = np.linalg.eigvalsh(hessian)
    found = loss_curvature(model, x, y, "mse", iterations=size)
    assert found.largest_eigenvalue == pytest.approx(true[-1], abs=1e-3 * abs(true).max())
    assert found.smallest_eigenvalue == pytest.approx(true[0], abs=1e-3 * abs(true).max())


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize(
    "name", ["ConditionedMultiHeadAttention", "ConditionedGroupQueryAttention"]
)
def test_curvature_of_attention(name, matrix):
    """As of the same function without the kernels that backends fuse attention into."""
    size = (2, 4) if "Multi" in name else (4, 2, 1)
    layer = getattr(keras_wcond, name)(*size)
    inputs, head = keras.Input((5, 8)), keras.layers.Dense(2)
    fused = keras.Model(inputs, head(layer(inputs, inputs)))
    # For the scores, Keras computes attention step by step.
    by_steps = keras.Model(inputs, head(layer(inputs, inputs, return_attention_scores=True)[0]))
    x, y = normal(6, 5, 8), np.ones((6, 5, 2), "float32")
    if keras.__version__.startswith("3.12.") and "Group" in name:
        pytest.skip("Keras 3.12 gives grouped attention other outputs when asked for its scores")
    norms = [
        loss_curvature(model, x, y, "mse", matrix=matrix, iterations=8).norm
        for model in (fused, by_steps)
    ]
    assert norms[1] > 0.0
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


class Scaled(keras_wcond.conditioners.Conditioner):
    """A method of a user's own, with or without the gradient of a part."""

    def __init__(self, stops):
        self.stops = stops

    def condition(self, matrices):
        norm = keras.ops.sqrt(keras.ops.sum(keras.ops.square(matrices), (1, 2), keepdims=True))
        return matrices / (keras.ops.stop_gradient(norm) if self.stops else norm)

    def get_config(self):
        return {"stops": self.stops}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    "conditioner", [Scaled(True), [Scaled(True), "polynomial_preconditioner"]], ids=str
)
def test_methods_that_stop_their_gradient_are_refused(conditioner, wrapped):
    if wrapped:
        layer = keras_wcond.Conditioned(keras.layers.Dense(4, "tanh"), conditioner)
    else:
        layer = keras_wcond.ConditionedDense(4, "tanh", kernel_conditioner=conditioner)
    model = keras.Sequential([keras.Input((5,)), layer, keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"that of their value.*Scaled\(stops=True\).*kernel'"):
        loss_curvature(model, normal(6, 5), np.ones((6, 2), "float32"), "mse")


@pytest.mark.parametrize(
    "method", [*keras_wcond.conditioners.METHODS.values(), "a user's own"], ids=str
)
def test_methods_with_their_own_gradient_are_not_refused(method, monkeypatch):
    """The package's own methods included, as if they were a user's."""
    conditioner = Scaled(False) if method == "a user's own" else method()
    monkeypatch.setattr(keras_wcond.conditioners, "METHODS", {})
    layer = keras_wcond.ConditionedDense(7, kernel_conditioner=conditioner)
    model = keras.Sequential([keras.Input((9,)), layer])
    layer.kernel.assign(normal(9, 7) * np.geomspace(1.0, 1e-3, 7))
    require_gradients_of_values(model)
