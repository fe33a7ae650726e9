import keras
import numpy as np
import pytest

from keras_wcond import ConditionedInitializer, WeightConditioning
from keras_wcond.conditioners import RowEquilibration, WeightStandardization
from tests.helpers import normal, to_numpy
from tests.reference import equilibrated

layers = keras.layers


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_kernels_are_conditioned_after_every_update(optimizer):
    convolution = layers.Conv2D(4, 3, kernel_constraint=WeightConditioning(gain=2.0))
    dense = layers.Dense(3, kernel_constraint=WeightConditioning())
    model = keras.Sequential([convolution, layers.Flatten(), dense])
    model.compile(optimizer, "mse")
    before = None
    for _ in range(2):
        model.fit(normal(8, 6, 6, 2), normal(8, 3), epochs=1, verbose=0)
        kernel = to_numpy(convolution.kernel)
        np.testing.assert_allclose(kernel, 2.0 * equilibrated(kernel), rtol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(to_numpy(dense.kernel), axis=0), 1.0, rtol=1e-5)
        assert before is None or np.any(kernel != before)
        before = kernel


@pytest.mark.parametrize(
    ("layer", "shape", "unit_axes", "norms"),
    [
        (layers.Conv2DTranspose, (None, 6, 6, 2), -2, "hwui,hwui->u"),
        (layers.DepthwiseConv2D, (None, 6, 6, 2), (-2, -1), "hwcm,hwcm->cm"),
    ],
)
def test_unit_axes_of_other_layers(layer, shape, unit_axes, norms):
    constraint = WeightConditioning(unit_axes=unit_axes)
    if layer is layers.DepthwiseConv2D:
        built = layer(3, depth_multiplier=2, depthwise_constraint=constraint)
    else:
        built = layer(5, 3, kernel_constraint=constraint)
    built.build(shape)
    kernel = to_numpy(constraint(built.kernel))
    np.testing.assert_allclose(np.einsum(norms, kernel, kernel), 1.0, rtol=1e-5)


def test_embeddings_have_a_row_per_token():
    table = to_numpy(WeightConditioning(unit_axes=0)(normal(7, 3)))
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype_of_the_weight_is_kept(dtype):
    weight = keras.Variable(normal(3, 4), dtype=dtype)
    conditioned = WeightConditioning()(weight)
    assert keras.backend.standardize_dtype(conditioned.dtype) == dtype


def test_kernel_norm_keeps_the_norm():
    kernel = normal(3, 4)
    conditioned = to_numpy(WeightConditioning(gain="kernel_norm")(kernel))
    np.testing.assert_allclose(np.linalg.norm(conditioned), np.linalg.norm(kernel), rtol=1e-5)


def test_initializer_conditions_what_another_draws():
    seeded = keras.initializers.HeNormal(seed=3)
    drawn = to_numpy(seeded((5, 4)))
    conditioned = to_numpy(ConditionedInitializer(seeded, gain=1.5)((5, 4)))
    np.testing.assert_allclose(conditioned, 1.5 * equilibrated(drawn), rtol=1e-5)


def test_initializer_acts_at_the_start_only():
    dense = layers.Dense(4, kernel_initializer=ConditionedInitializer("glorot_uniform"))
    model = keras.Sequential([dense])
    model.build((None, 3))
    np.testing.assert_allclose(np.linalg.norm(to_numpy(dense.kernel), axis=0), 1.0, rtol=1e-5)
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(normal(8, 3), normal(8, 4), verbose=0)
    assert np.all(np.abs(np.linalg.norm(to_numpy(dense.kernel), axis=0) - 1.0) > 1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_initializer_draws_in_the_dtype_asked_for(dtype):
    kernel = ConditionedInitializer()((3, 4), dtype=dtype)
    assert keras.backend.standardize_dtype(kernel.dtype) == dtype


@pytest.mark.parametrize(
    "original",
    [
        WeightConditioning(gain=2.0, unit_axes=(-2, -1)),
        ConditionedInitializer(
            keras.initializers.HeNormal(seed=3), gain="kernel_norm", unit_axes=0
        ),
    ],
)
def test_config_round_trip(original):
    config = keras.saving.serialize_keras_object(original)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(original)
    assert copy.get_config() == original.get_config()
    assert copy.kernel_conditioner == RowEquilibration()


def test_layer_with_both_survives_saving(tmp_path):
    dense = layers.Dense(
        4, kernel_constraint=WeightConditioning(), kernel_initializer=ConditionedInitializer()
    )
    model = keras.Sequential([keras.Input((3,)), dense])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[0]
    assert isinstance(loaded.kernel_constraint, WeightConditioning)
    assert isinstance(loaded.kernel_initializer, ConditionedInitializer)
    np.testing.assert_array_equal(to_numpy(loaded.kernel), to_numpy(dense.kernel))


@pytest.mark.parametrize("shape", [(), (4,)])
def test_scalars_and_vectors_are_refused(shape):
    weight = keras.Variable(np.ones(shape, "float32"))
    with pytest.raises(ValueError, match=r"Expected .*kernel.*Received: "):
        WeightConditioning()(weight)


def test_bias_constraint_is_refused_with_advice():
    model = keras.Sequential([layers.Dense(4, bias_constraint=WeightConditioning())])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"Biases, scalars and other vectors have no rows"):
        model.fit(normal(8, 3), normal(8, 4), verbose=0)


@pytest.mark.parametrize("owner", [WeightConditioning, ConditionedInitializer])
def test_none_is_refused(owner):
    with pytest.raises(ValueError, match=rf"Expected `{owner.__name__}`.*kernel_conditioner=None"):
        owner(kernel_conditioner=None)


@pytest.mark.parametrize("owner", [WeightConditioning, ConditionedInitializer])
def test_conditioner_is_taken_by_its_earlier_name_and_from_earlier_configs(owner):
    earlier = owner(conditioner="weight_standardization")
    assert earlier.conditioner == earlier.kernel_conditioner == WeightStandardization()
    assert owner(kernel_conditioner="weight_standardization").get_config() == earlier.get_config()
    config = earlier.get_config()
    config["conditioner"] = config.pop("kernel_conditioner")
    assert owner.from_config(config).kernel_conditioner == WeightStandardization()


@pytest.mark.parametrize("owner", [WeightConditioning, ConditionedInitializer])
def test_conditioner_by_both_names_is_refused(owner):
    with pytest.raises(ValueError, match=r"without `conditioner`.* Received: kernel_conditioner='"):
        owner(kernel_conditioner="ruiz_equilibration", conditioner="weight_standardization")


def test_repr_tells_method_gain_and_layout():
    assert repr(WeightConditioning(gain=2.0)) == (
        "WeightConditioning(RowEquilibration(), gain=2.0, "
        "layout=KernelLayout(unit_axes=(-1,), matrix_axes=(), blocks=1))"
    )
