"""Which kernels an optimizer conditions: those that were chosen, or none."""

import pickle

import keras
import numpy as np
import pytest

from keras_wcond import condition_optimizer, conditioners
from keras_wcond.conditioners import NewtonOrthogonalization
from tests.helpers import normal, to_numpy

# So many steps that a conditioned update has equal singular values.
ORTHOGONAL = NewtonOrthogonalization(60, center=False)


def network(count=4, width=8):
    """Hidden layers whose kernels differ in nothing but their names."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((width,)),
            *(keras.layers.Dense(width, "tanh", name=f"hidden_{i}") for i in range(count)),
            keras.layers.Dense(width, name="last"),
        ]
    )


def conditioned(model, layers=None):
    """The names of the layers whose kernels one more step changes by an orthogonal update."""
    kernels = {layer.name: layer.kernel for layer in layers or model.layers}
    before = {name: to_numpy(kernel) for name, kernel in kernels.items()}
    model.train_on_batch(normal(32, 8), normal(32, 8, seed=1))
    updates = {name: to_numpy(kernel) - before[name] for name, kernel in kernels.items()}
    return [name for name, each in updates.items() if 0.0 < np.linalg.cond(each) < 1.1]


def sgd(model, **kwargs):
    return condition_optimizer(keras.optimizers.SGD(0.1), model, ORTHOGONAL, **kwargs)


def test_layers_that_are_frozen_later_are_left_out():
    model = network()
    optimizer = sgd(model)
    model.layers[0].trainable = False
    model.compile(optimizer, "mse")
    assert conditioned(model) == ["hidden_1", "hidden_2", "hidden_3"]
    model = network()
    optimizer = sgd(model, layers=["hidden_1", "hidden_2"])
    model.layers[0].trainable = False
    model.compile(optimizer, "mse")
    assert conditioned(model) == ["hidden_1", "hidden_2"]


def test_layers_that_are_unfrozen_later_stay_without_conditioning():
    model = network()
    model.layers[0].trainable = False
    optimizer = sgd(model)
    model.layers[0].trainable = True
    model.compile(optimizer, "mse")
    assert conditioned(model) == ["hidden_1", "hidden_2", "hidden_3"]


def test_model_around_the_given_one_is_not_conditioned():
    inner = network(2)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="outer"), inner])
    model.compile(sgd(inner), "mse")
    assert conditioned(model, [model.layers[0], *inner.layers]) == ["hidden_0", "hidden_1"]


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer"
)
def test_optimizers_may_share_a_model():
    model = network()
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.Adam(), {r".*/hidden_[1-9]/.*": sgd(model)})
    )
    model.compile(several, "mse")
    assert conditioned(model) == ["hidden_1", "hidden_2", "hidden_3"]


def quantize(model):
    model.quantize("int8")


def adapt(model):
    model.layers[0].enable_lora(2)


def freeze(model):
    model.layers[0].trainable = False


@pytest.mark.parametrize("change", [quantize, adapt, freeze])
def test_model_that_was_changed_after_training_loads_and_does_not_train(change, tmp_path):
    model = network()
    model.compile(sgd(model), "mse")
    conditioned(model)
    change(model)
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match=r"the kernels that `condition_optimizer\(\)` chose"):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    x = normal(4, 8)
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(model(x)), atol=1e-6)
    with pytest.raises(
        ValueError, match=r"Received: other weights.* for the model that you compile"
    ):
        loaded.train_on_batch(normal(32, 8), normal(32, 8, seed=1))
    loaded.compile("sgd", "mse")
    loaded.train_on_batch(normal(32, 8), normal(32, 8, seed=1))


def test_optimizer_of_another_model_is_refused():
    optimizer = sgd(network())
    with pytest.raises(ValueError, match=r"chose. Received: other weights"):
        optimizer.build(network().trainable_variables)


def test_pickled_optimizer_conditions_the_same_kernels():
    model = network()
    optimizer = condition_optimizer("adam", model, ORTHOGONAL, layers=["hidden_1"])
    copied = pickle.loads(pickle.dumps(optimizer))
    assert copied.get_config() == optimizer.get_config()
    model.compile(copied, "mse")
    assert conditioned(model) == ["hidden_1"]


class SGD(keras.optimizers.SGD):
    """Has the name of a Keras optimizer."""

    def update_step(self, gradient, variable, learning_rate):
        self.assign_add(variable, keras.ops.full(variable.shape, 7.0))


def test_class_with_the_name_of_a_keras_optimizer_keeps_its_own_steps():
    model = network()
    optimizer = condition_optimizer(SGD(0.1), model, ORTHOGONAL)
    assert isinstance(optimizer, SGD)
    model.compile(optimizer, "mse")
    before = to_numpy(model.layers[-1].kernel)
    model.train_on_batch(normal(32, 8), normal(32, 8, seed=1))
    np.testing.assert_allclose(to_numpy(model.layers[-1].kernel) - before, 7.0, rtol=1e-5)


def test_config_of_lamb_is_read():
    model = network()
    optimizer = condition_optimizer(keras.optimizers.Lamb(0.1), model, ORTHOGONAL)
    made = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(made, keras.optimizers.Lamb)
    assert made.get_config() == optimizer.get_config()


@pytest.mark.parametrize("name", ["newton_orthogonalization", "weight_standardization"])
def test_kernel_with_one_input_is_not_made_zero(name):
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(8, name="first"), keras.layers.Dense(2)]
    )
    for role in ("update_conditioner", "weight_conditioner"):
        with pytest.raises(ValueError, match=rf"`{role}` to be a method that does not center.*fir"):
            condition_optimizer("sgd", model, **{role: name})
    uncentered = condition_optimizer(
        "sgd", model, conditioners.NewtonOrthogonalization(center=False)
    )
    assert len(uncentered.get_config()["kernels"]) == 1
