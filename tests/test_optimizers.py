"""Optimizers that condition updates and stored kernels."""

import inspect

import keras
import numpy as np
import pytest

from keras_wcond import Conditioned, condition_model, condition_optimizer, conditioners
from keras_wcond.kernels.keras_layers import kernel_layouts
from tests.helpers import normal, to_numpy
from tests.layers.wrapped_layers import BuiltByCall

MUON = (3.4445, -4.7750, 2.0315)


@keras.saving.register_keras_serializable("tests")
class MuonPolynomial(conditioners.Conditioner):
    """The five quintics of Keras' Muon, on the update over its Frobenius norm."""

    def condition(self, matrices):
        a, b, c = MUON
        ops = keras.ops
        squares = ops.sum(ops.square(matrices), axis=(1, 2), keepdims=True)
        x = matrices / (ops.sqrt(squares) + 1e-7)
        is_tall = x.shape[1] > x.shape[2]
        x = ops.transpose(x, (0, 2, 1)) if is_tall else x
        for _ in range(5):
            gram = x @ ops.transpose(x, (0, 2, 1))
            x = a * x + (b * gram + c * gram @ gram) @ x
        return ops.transpose(x, (0, 2, 1)) if is_tall else x


def muon_in_numpy(matrix):
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / (np.linalg.norm(values) + 1e-7)
    for _ in range(5):
        values = values * np.polynomial.polynomial.polyval(values**2, MUON)
    return 0.2 * np.sqrt(max(matrix.shape)) * (left * values @ right)


def dense_model(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(16, activation="tanh", use_bias=False),
            keras.layers.Dense(9, activation="tanh", use_bias=False),
            keras.layers.Dense(5, use_bias=False),
        ]
    )


def train(model, optimizer, steps=10, **kwargs):
    shape = (8, *model.input_shape[1:])
    model.compile(optimizer, "mse", **kwargs)
    x, y = normal(*shape), normal(8, *model.output_shape[1:], seed=1)
    model.fit(x, y, batch_size=8, epochs=steps, shuffle=False, verbose=0)
    return [to_numpy(weight) for weight in model.trainable_weights]


def muon(model, **kwargs):
    return condition_optimizer(
        keras.optimizers.SGD(0.01, momentum=0.95, nesterov=True),
        model,
        MuonPolynomial(),
        gain="muon",
        layers=keras.layers.Layer,
        **kwargs,
    )


@pytest.mark.skipif(
    "rms_rate" not in inspect.signature(keras.optimizers.Muon).parameters,
    reason="this Keras' Muon has another gain, without the argument rms_rate",
)
def test_configured_as_muon_it_equals_the_muon_of_keras():
    expected = dense_model()
    expected = train(expected, keras.optimizers.Muon(0.01, weight_decay=None))
    model = dense_model()
    for found, kernel in zip(train(model, muon(model)), expected, strict=True):
        np.testing.assert_allclose(found, kernel, atol=1e-5)


MODELS = {
    "convolution": lambda: [
        keras.Input((5, 5, 4)),
        keras.layers.Conv2D(6, 3, groups=2, use_bias=False),
        keras.layers.Flatten(),
    ],
    "lstm": lambda: [keras.Input((4, 3)), keras.layers.LSTM(5)],
    "heads": lambda: [
        keras.Input((4, 6)),
        keras.layers.EinsumDense("abc,cde->abde", (4, 2, 4)),
        keras.layers.Flatten(),
    ],
}


@pytest.mark.parametrize("kind", MODELS)
def test_kernels_are_read_as_the_matrices_that_their_layer_multiplies_by(kind):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(MODELS[kind]())
    layer = model.layers[0]
    before = [to_numpy(weight) for weight in model.trainable_weights]
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    plain_after = train(plain, keras.optimizers.SGD(1.0), steps=1)
    after = train(model, condition_optimizer(
        keras.optimizers.SGD(1.0), model, MuonPolynomial(), gain="muon", layers=keras.layers.Layer
    ), steps=1)  # fmt: skip
    layouts = {path.rpartition("/")[2]: each for path, each in kernel_layouts(layer).items()}
    names = [weight.name for weight in model.trainable_weights]
    for name, *values in zip(names, before, plain_after, after, strict=True):
        start, by_sgd, found = (value.astype("float64") for value in values)
        update = by_sgd - start
        if name in layouts:
            matrices = layouts[name].to_matrices(update)
            conditioned = np.stack([muon_in_numpy(matrix) for matrix in matrices])
            update = layouts[name].from_matrices(conditioned, update.shape)
        np.testing.assert_allclose(found, start + update, rtol=1e-3, atol=2e-3)


def test_norm_of_the_update_is_kept_by_default():
    model, plain = dense_model(), dense_model()
    before = [to_numpy(weight) for weight in model.trainable_weights]
    by_sgd = train(plain, keras.optimizers.SGD(0.1), steps=1)
    found = train(model, condition_optimizer(
        keras.optimizers.SGD(0.1), model, "newton_orthogonalization"
    ), steps=1)  # fmt: skip
    for i in range(2):
        updates = found[i] - before[i], by_sgd[i] - before[i]
        np.testing.assert_allclose(*map(np.linalg.norm, updates), rtol=1e-3)
        assert np.abs(updates[0] - updates[1]).max() > 1e-5
    # The output layer is chosen only if it is named.
    np.testing.assert_allclose(found[2], by_sgd[2], atol=1e-6)


@pytest.mark.parametrize("every", [1, 3])
def test_stored_kernels_are_conditioned_every_so_many_updates(every):
    model = dense_model()
    step = conditioners.NewtonStep()
    optimizer = condition_optimizer(
        keras.optimizers.SGD(0.0), model, weight_conditioner=step, every=every
    )
    kernel = to_numpy(model.trainable_weights[0])
    for _ in range(7 // every):  # After updates 3 and 6, and not after the first and the last.
        kernel = to_numpy(step(kernel))
    found = train(model, optimizer, steps=7)[0]
    np.testing.assert_allclose(found, kernel, rtol=1e-4, atol=1e-6)


OPTIMIZERS = {
    "schedule": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9
    ),
    "weight decay": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "clipping": lambda: keras.optimizers.RMSprop(0.01, global_clipnorm=0.1),
    "moving average": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5),
    "accumulation": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=3),
    "state of all": lambda: keras.optimizers.Nadam(0.01),
    "lion": lambda: keras.optimizers.Lion(0.01),
}


@keras.saving.register_keras_serializable("tests")
class Unchanged(conditioners.Conditioner):
    def condition(self, matrices):
        return 1.0 * matrices


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_everything_else_is_as_with_the_given_optimizer(kind):
    plain, model = dense_model(), dense_model()
    expected = train(plain, OPTIMIZERS[kind](), steps=7)
    optimizer = condition_optimizer(OPTIMIZERS[kind](), model, Unchanged())
    for found, weight in zip(train(model, optimizer, steps=7), expected, strict=True):
        np.testing.assert_allclose(found, weight, rtol=1e-4, atol=1e-6)
    shapes = [[v.shape for v in each.variables] for each in (optimizer, plain.optimizer)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_saved_run_is_resumed_where_it_was(kind, tmp_path):
    if kind == "moving average" and keras.backend.backend() == "jax":
        pytest.skip("Keras on JAX cannot call `fit()` twice with a moving average")
    model = dense_model()
    optimizer = condition_optimizer(
        OPTIMIZERS[kind](), model, "polar_express", "newton_step", every=2
    )
    train(model, optimizer, steps=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == optimizer.get_config()
    x, y = normal(8, 12), normal(8, 5, seed=1)
    for each in (model, loaded):
        each.fit(x, y, batch_size=8, epochs=4, shuffle=False, verbose=0)
    for found, expected in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))


def test_weights_that_are_left_out_of_weight_decay_stay_out_of_it():
    plain, model = dense_model(), dense_model()
    optimizers = [keras.optimizers.SGD(0.1, weight_decay=0.3) for _ in range(2)]
    for optimizer, each in zip(optimizers, (plain, model), strict=True):
        optimizer.exclude_from_weight_decay(var_list=[each.trainable_weights[0]])
    expected = train(plain, optimizers[0], steps=3)
    found = train(model, condition_optimizer(optimizers[1], model, Unchanged()), steps=3)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_loss_scaling_and_mixed_precision():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((12,)), keras.layers.Dense(8, dtype="mixed_float16"), keras.layers.Dense(2)]
    )
    optimizer = condition_optimizer("sgd", model, "polar_express", "newton_step")
    weights = train(model, keras.optimizers.LossScaleOptimizer(optimizer), steps=3)
    assert all(np.all(np.isfinite(weight)) for weight in weights)


def test_kernels_of_conditioned_layers_are_chosen_too():
    model = condition_model(dense_model(), "newton_orthogonalization")
    plain = condition_model(dense_model(), "newton_orthogonalization")
    found = train(model, condition_optimizer("sgd", model, "polar_express"), steps=1)
    expected = train(plain, "sgd", steps=1)
    assert np.abs(found[0] - expected[0]).max() > 1e-6


def test_update_that_is_not_a_number_stays_visible_and_harms_no_other_kernel():
    model = dense_model()
    optimizer = condition_optimizer(
        keras.optimizers.SGD(0.1), model, "polar_express", "newton_step"
    )
    gradients = [np.full(w.shape, np.nan if i == 0 else 1.0, "float32")
                 for i, w in enumerate(model.trainable_weights)]  # fmt: skip
    optimizer.apply(
        [keras.ops.convert_to_tensor(each) for each in gradients], model.trainable_variables
    )
    first, *others = [to_numpy(weight) for weight in model.trainable_weights]
    assert np.all(np.isnan(first))
    assert all(np.all(np.isfinite(other)) for other in others)


def test_given_optimizer_is_left_as_it_is_and_its_class_is_extended():
    given = keras.optimizers.Adam(0.01, beta_1=0.5)
    optimizer = condition_optimizer(given, dense_model(), "row_equilibration")
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert optimizer.beta_1 == 0.5
    assert not given.built
    assert not optimizer.built


def test_bad_input_is_refused():
    model = dense_model()
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    with pytest.raises(
        TypeError, match=r"`optimizer` to be a Keras optimizer.* Received: optimize"
    ):
        condition_optimizer(keras.losses.MeanSquaredError(), model, "polar_express")
    with pytest.raises(
        TypeError, match=r"`optimizer` to be .* config of one. Received: optimizer={"
    ):
        condition_optimizer({"learning_rate": 0.1}, model, "polar_express")
    with pytest.raises(ValueError, match=r"`update_conditioner` or `weight_conditioner`"):
        condition_optimizer("sgd", model)
    for every in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match=r"`every` to be a positive integer. Received: every"):
            condition_optimizer("sgd", model, "polar_express", every=every)
    without = keras.Sequential([keras.Input((3,)), keras.layers.Activation("relu")])
    with pytest.raises(ValueError, match=r"a kernel to condition. Received.*by `layers=`"):
        condition_optimizer("sgd", without, "polar_express")
    with pytest.raises(ValueError, match=r"Expected `gain` to be .* Received: gain='auto'"):
        condition_optimizer("sgd", model, "polar_express", gain="auto")
    with pytest.raises(ValueError, match=r"`gain` only with an `update_conditioner`.* gain='muon'"):
        condition_optimizer("sgd", model, weight_conditioner="newton_step", gain="muon")
    with pytest.raises(ValueError, match=r"`every` only with a `weight_conditioner`.* every=8"):
        condition_optimizer("sgd", model, "polar_express", every=8)
    with pytest.raises(ValueError, match=r"to make updates itself. Received: .*LossScale"):
        condition_optimizer(scaled, model, "polar_express")
    made = condition_optimizer("sgd", model, "polar_express")
    with pytest.raises(ValueError, match=r"to be a plain optimizer. Received"):
        condition_optimizer(made, model, "polar_express")
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(
        ValueError, match=r"`condition_optimizer\(\)` chose. Received: other weights"
    ):
        made.build(other.trainable_variables)
    with pytest.raises(ValueError, match=r"adds an update to a kernel. Received: ConditionedFtrl"):
        train(model, condition_optimizer("ftrl", model, "polar_express"), steps=1, run_eagerly=True)
    other = dense_model()
    stored = condition_optimizer("ftrl", other, weight_conditioner="newton_step")
    with pytest.raises(ValueError, match=r"adds an update to a kernel. Received: ConditionedFtrl"):
        train(other, stored, steps=1, run_eagerly=True)
    with pytest.raises(ValueError, match=r"neither functional nor Sequential.* Received: model="):
        condition_optimizer("sgd", Subclassed(), "polar_express")
    frozen = dense_model()
    for layer in frozen.layers[:2]:
        layer.trainable = False
    with pytest.raises(ValueError, match=r"a trainable kernel to condition. Received: model="):
        condition_optimizer("sgd", frozen, "polar_express")


@pytest.mark.parametrize("position", [99, -1, None])
def test_configs_with_other_positions_are_refused(position):
    config = condition_optimizer("sgd", dense_model(), "polar_express").get_config()
    config["kernels"][0]["position"] = position
    cls = type(condition_optimizer("sgd", dense_model(), "polar_express"))
    with pytest.raises(ValueError, match=r"among its \d+ trainable weights. Received: kernels at "):
        cls.from_config(config)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)
        self.build((None, 3))

    def call(self, inputs):
        return self.dense(inputs)


def test_accumulated_gradients_make_one_update():
    model = dense_model()
    step = conditioners.NewtonStep()
    given = keras.optimizers.SGD(0.0, gradient_accumulation_steps=3)
    optimizer = condition_optimizer(given, model, weight_conditioner=step, every=2)
    model.compile(optimizer, "mse")
    x, y = normal(8, 12), normal(8, 5, seed=1)
    changed = []
    for call in range(1, 13):
        before = to_numpy(model.trainable_weights[0])
        model.train_on_batch(x, y)
        if np.abs(to_numpy(model.trainable_weights[0]) - before).max() > 1e-6:
            changed.append(call)
    # Updates are calls 3, 6, 9 and 12.
    assert changed == [6, 12]


def test_moving_averages_and_constraints_come_after_the_conditioning():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, kernel_constraint="non_neg"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((12,)), *layers])
    optimizer = condition_optimizer(
        keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.0),
        model,
        weight_conditioner=conditioners.NewtonOrthogonalization(20, center=False),
    )
    model.compile(optimizer, "mse")
    model.train_on_batch(normal(8, 12), normal(8, 2, seed=1))
    kernel, *_ = optimizer._model_variables_moving_average
    assert np.linalg.cond(to_numpy(kernel)) == pytest.approx(1.0, abs=1e-3)
    assert to_numpy(model.layers[0].kernel).min() >= 0.0


@keras.saving.register_keras_serializable("tests")
class Inside(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(5)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs):
        return self.dense(inputs)


def test_layers_may_have_other_names_when_they_are_loaded(tmp_path):
    model = keras.Sequential([keras.Input((12,)), Inside(), keras.layers.Dense(5)])
    optimizer = condition_optimizer("adam", model, "polar_express")
    train(model, optimizer, steps=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].dense.name != model.layers[0].dense.name
    x, y = normal(8, 12), normal(8, 5, seed=1)
    for each in (model, loaded):
        each.fit(x, y, batch_size=8, verbose=0)
    for found, expected in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_allclose(to_numpy(found), to_numpy(expected), rtol=1e-5, atol=1e-6)


def test_gains_of_layers_inside_others_may_have_other_names_when_they_are_loaded(tmp_path):
    """Keras numbers the inner layers, and the names of gains have these numbers."""
    keras.layers.Dense(2)  # Takes the first number.
    wrapped = Conditioned(BuiltByCall(), trainable_gain="scalar")
    model = keras.Sequential([keras.Input((12,)), wrapped, keras.layers.Dense(5)])
    train(model, condition_optimizer("sgd", model, "polar_express"), steps=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    names = [[weight.name for weight in each.weights] for each in (model, loaded)]
    assert names[0] != names[1]
    x, y = normal(8, 12), normal(8, 5, seed=1)
    for each in (model, loaded):
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for found, expected in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))


@pytest.mark.parametrize("given", ["sgd", "adagrad", "rmsprop", "adam"])
def test_updates_of_embeddings_are_conditioned(given):
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(7, 4),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    conditioner = conditioners.NewtonOrthogonalization(40, center=False)
    optimizer = condition_optimizer(given, model, conditioner, layers=keras.layers.Embedding)
    model.compile(optimizer, "mse")
    before = to_numpy(model.layers[0].embeddings)
    x = np.arange(40).reshape(8, 5) % 7
    model.train_on_batch(x, normal(8, 3))
    update = to_numpy(model.layers[0].embeddings) - before
    assert np.linalg.cond(update) == pytest.approx(1.0, abs=0.05)


class Rising(keras.optimizers.schedules.LearningRateSchedule):
    """Has no config."""

    def __call__(self, step):
        return 0.01 * keras.ops.cast(step + 1, "float32")


@pytest.mark.parametrize("rate", [Rising(), lambda: 0.01])
def test_learning_rates_need_no_config(rate):
    plain, model = dense_model(), dense_model()
    expected = train(plain, keras.optimizers.SGD(rate), steps=3)
    given = keras.optimizers.SGD(rate)
    optimizer = condition_optimizer(given, model, Unchanged())
    for found, weight in zip(train(model, optimizer, steps=3), expected, strict=True):
        np.testing.assert_allclose(found, weight, rtol=1e-4, atol=1e-6)
    assert given._learning_rate is rate


def test_kernels_of_conditioned_layers_may_be_named():
    model = condition_model(dense_model(), "newton_orthogonalization")
    optimizer = condition_optimizer("sgd", model, "polar_express", layers=keras.layers.Dense)
    assert len(optimizer.get_config()["kernels"]) == 3


def test_variables_may_come_from_an_iterator():
    model = dense_model()
    optimizer = condition_optimizer("sgd", model, "polar_express", "newton_step")
    before = [to_numpy(variable) for variable in model.trainable_variables]
    gradients = [keras.ops.ones(variable.shape) for variable in model.trainable_variables]
    optimizer.apply(gradients, iter(model.trainable_variables))
    for variable, value in zip(model.trainable_variables, before, strict=True):
        assert np.abs(to_numpy(variable) - value).max() > 1e-3


def test_one_kernel_may_be_updated_by_itself():
    model = dense_model()
    optimizer = condition_optimizer("sgd", model, "polar_express")
    variables = model.trainable_variables
    optimizer.build(variables)
    gradients = [keras.ops.ones(variable.shape) for variable in variables]
    optimizer.apply(gradients, variables)
    before = to_numpy(variables[0].value).copy()
    optimizer.update_step(gradients[0], variables[0], 0.1)
    assert np.any(to_numpy(variables[0].value) != before)
