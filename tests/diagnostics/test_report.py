import json
import re

import keras
import numpy as np
import pytest

from keras_wcond import (
    Conditioned,
    ConditionedDense,
    condition_model,
    condition_number,
    conditioners,
    conditioning_report,
    effective_condition_number,
    singular_values,
    stable_rank,
)
from keras_wcond.conditioners import Conditioner, NewtonOrthogonalization, RowEquilibration
from keras_wcond.diagnostics.report import METHODS
from keras_wcond.kernels.layout import KernelLayout
from tests import methods_in_numpy
from tests.helpers import normal, to_numpy


def network():
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            keras.layers.Conv2D(6, 3, groups=2, name="grouped"),
            keras.layers.DepthwiseConv2D(3, name="depthwise"),
            keras.layers.Flatten(),
            keras.layers.Dense(12, name="dense"),
            keras.layers.Dense(3, name="last"),
        ]
    )


def records(model, **arguments):
    return {row["path"]: row for row in conditioning_report(model, **arguments).records}


def dense(kernel):
    model = keras.Sequential([keras.Input((len(kernel),)), keras.layers.Dense(kernel.shape[1])])
    model.layers[0].kernel.assign(kernel)
    return model


def test_measures_are_those_of_the_functions():
    model = condition_model(network(), "newton_orthogonalization")
    layer = model.get_layer("dense")
    record = records(model)["dense/kernel"]
    assert record["raw_condition_number"] == condition_number(layer.kernel)
    effective = layer.conditioned_kernel
    assert record["condition_number"] == condition_number(effective)
    assert record["effective_condition_number"] == effective_condition_number(effective)
    assert record["stable_rank"] == stable_rank(effective)
    assert record["largest_singular_value"] == singular_values(effective)[0]
    norms = np.linalg.norm(to_numpy(effective), axis=0)
    np.testing.assert_allclose(record["row_norm_spread"], norms.max() / norms.min(), rtol=1e-5)
    assert record["conditioner"] == "newton_orthogonalization"
    assert (record["rows"], record["columns"], record["matrices"]) == (12, 96, 1)


def test_stacks_are_told_by_their_worst_matrix():
    model = network()
    record = records(model)["grouped/kernel"]
    assert (record["matrices"], record["rows"], record["columns"]) == (2, 3, 18)
    expected = condition_number(model.get_layer("grouped").kernel, KernelLayout(blocks=2))
    assert record["condition_number"] == expected.max()
    depthwise = records(model)["depthwise/kernel"]
    assert (depthwise["matrices"], depthwise["condition_number"]) == (6, 1.0)


@pytest.mark.parametrize("name", METHODS)
def test_predictions_are_what_each_method_makes(name):
    kernel = normal(9, 6)
    (predicted,) = conditioning_report(dense(kernel)).records
    expected = effective_condition_number(
        methods_in_numpy.METHODS[name](kernel.T.astype("float64")).T.astype("float32")
    )
    np.testing.assert_allclose(predicted[f"with_{name}"], expected, rtol=1e-3)


def test_methods_can_be_chosen_also_ones_own():
    class Identity(Conditioner):
        def condition(self, matrices):
            return keras.ops.identity(len(matrices[0])) @ keras.ops.convert_to_tensor(matrices)

    model = dense(normal(6, 4))
    (record,) = conditioning_report(model, [Identity(), NewtonOrthogonalization(9)]).records
    np.testing.assert_allclose(record["with_Identity()"], record["condition_number"], rtol=1e-4)
    assert record["with_NewtonOrthogonalization(iterations=9)"] < 2.0
    (record,) = conditioning_report(model, []).records
    assert not [key for key in record if key.startswith("with_")]
    with pytest.raises(ValueError, match=r"`conditioning_report` to be given a conditioner"):
        conditioning_report(model, [None])


def with_rows_scaled(kernel):
    return kernel * np.geomspace(1e-2, 1e2, kernel.shape[1]).astype("float32")


def nearly_singular(size=20):
    random = np.random.default_rng(0)
    left, _ = np.linalg.qr(random.normal(size=(size, size)))
    right, _ = np.linalg.qr(random.normal(size=(size, size)))
    return ((left * np.geomspace(1.0, 1e-3, size)) @ right).astype("float32")


def without_full_rank():
    kernel = normal(30, 6)
    kernel[:, 1] = 2.0 * kernel[:, 0]
    return kernel


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (normal(60, 6), r"^κ is small$"),
        (with_rows_scaled(normal(60, 6)), r"^row_equilibration lowers κ: [\d,]+ → 1\.\d+$"),
        (with_rows_scaled(normal(60, 6)).T.copy(), r"^column_equilibration lowers κ: "),
        (
            nearly_singular(),
            r"leaves κ; orthogonal updates by condition_optimizer or \w+ \(κ [\d.]+\) may help$",
        ),
        (without_full_rank(), r"^rank 5 of 6, which no method restores; κ is small"),
        (np.ones((5, 1), "float32"), r"single rows or columns: κ is 1"),
        (np.zeros((5, 3), "float32"), r"^zero: nothing to condition"),
        (np.full((5, 3), np.nan, "float32"), r"^not finite: training has diverged"),
    ],
)
def test_advice(kernel, words):
    (record,) = conditioning_report(dense(kernel)).records
    assert re.search(words, record["advice"]), record["advice"]


def test_advice_names_the_method_that_leaves_the_narrowest_spectrum():
    (record,) = conditioning_report(dense(nearly_singular())).records
    spectral = [name for name in METHODS if conditioners.METHODS[name].changes == "spectrum"]
    narrowest = min(spectral, key=lambda name: record[f"with_{name}"])
    assert f" or {narrowest} (κ " in record["advice"]


def test_advice_on_conditioned_kernels():
    model = network()
    scaled = with_rows_scaled(to_numpy(model.get_layer("dense").kernel))
    model.get_layer("dense").kernel.assign(scaled)
    found = records(condition_model(model), methods=[])
    assert found["dense/kernel"]["advice"].startswith("conditioned: κ ")
    assert found["grouped/kernel"]["advice"].startswith("scale only: κ ")


def test_json_is_valid_whatever_the_numbers():
    kernel = np.ones((4, 4), "float32")
    report = conditioning_report(dense(kernel))
    (record,) = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert record["condition_number"] == "inf"
    assert record["shape"] == [4, 4]


def test_plot_has_both_spectra(tmp_path):
    report = conditioning_report(network(), [])
    figure = report.plot(tmp_path / "spectra.png")
    assert (tmp_path / "spectra.png").read_bytes().startswith(b"\x89PNG")
    # Two groups, six channels, and two kernels of one matrix.
    assert [len(axes.lines) for axes in figure.axes] == [10, 10]


def test_many_kernels_and_zero_ones_are_drawn_with_a_bar_of_colors():
    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(4) for _ in range(13))])
    model.layers[0].kernel.assign(np.zeros((4, 4)))
    figure = conditioning_report(model, []).plot()
    assert [len(axes.lines) for axes in figure.axes[:2]] == [13, 13]
    assert figure.axes[2].get_ylabel() == "kernel, in the model's order"
    assert all(axes.get_legend() is None for axes in figure.axes)


def test_a_conditioner_that_makes_a_kernel_worse_is_told():
    class Cubing(Conditioner):
        def condition(self, matrices):
            return keras.ops.matmul(keras.ops.matmul(matrices, matrices), matrices)

    model = keras.Sequential(
        [keras.Input((5,)), ConditionedDense(5, kernel_conditioner=Cubing(), name="worse")]
    )
    (record,) = conditioning_report(model, []).records
    assert record["advice"].startswith("made worse: κ ")


def test_kernels_of_ones_own_are_reported_where_they_are_conditioned():
    class Mixing(keras.layers.Layer):
        def build(self, input_shape):
            self.mixing = self.add_weight(shape=(input_shape[-1], 5), name="mixing")

        def call(self, inputs):
            return keras.ops.matmul(inputs, self.mixing)

    model = keras.Sequential(
        [keras.Input((4,)), Conditioned(Mixing(), weights="mixing"), keras.layers.Embedding(9, 3)]
    )
    (record,) = conditioning_report(model, []).records
    assert record["path"].endswith("mixing")
    assert record["conditioner"] == "row_equilibration"
    np.testing.assert_allclose(record["row_norm_spread"], 1.0, rtol=1e-5)


def test_low_rank_updates_are_part_of_the_effective_kernel():
    model = network()
    layer = model.get_layer("dense")
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(normal(2, 12))
    record = records(model, methods=[])["dense/kernel"]
    assert record["condition_number"] == condition_number(layer.kernel)
    # What each method would make of it, too, is told of the merged kernel.
    record = records(model)["dense/kernel"]
    expected = effective_condition_number(RowEquilibration()(layer.kernel))
    np.testing.assert_allclose(record["with_row_equilibration"], expected, rtol=1e-3)


def test_half_precision_policies_are_measured_too():
    keras.utils.set_random_seed(5)
    layer = keras.layers.Dense(12, dtype="mixed_bfloat16", name="half")
    model = condition_model(keras.Sequential([keras.Input((40,)), layer]), layers="half")
    (record,) = conditioning_report(model).records
    assert record["is_finite"]
    assert record["numerical_rank"] == 12
    np.testing.assert_allclose(record["row_norm_spread"], 1.0, rtol=1e-2)


def test_model_without_kernels_is_refused():
    model = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"built model with kernels.*not built, with 0 weights"):
        conditioning_report(model)


def test_methods_that_take_a_rank_are_not_called_worse():
    model = condition_model(dense(normal(12, 12)), NewtonOrthogonalization(25), layers="*")
    (record,) = conditioning_report(model).records
    assert record["condition_number"] > 1e5
    assert record["advice"].startswith("conditioned: κ ")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_kernels_have_a_rank(dtype):
    values = np.diag(np.linspace(1.0, 2.0, 256)).astype("float32")
    kernel = keras.ops.cast(keras.ops.convert_to_tensor(values), dtype)
    np.testing.assert_allclose(effective_condition_number(kernel), 2.0, rtol=1e-2)
    model = keras.Sequential([keras.Input((200,)), keras.layers.Dense(200, dtype=dtype)])
    (record,) = conditioning_report(model, []).records
    assert record["numerical_rank"] > 100


def test_double_precision_kernels_are_told_in_double_precision():
    values = np.diag(np.geomspace(1.0, 1e-10, 6))
    rotation, _ = np.linalg.qr(normal(6, 6).astype("float64"))
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, dtype="float64")])
    kernel = model.layers[0].kernel
    if keras.backend.standardize_dtype(kernel.value.dtype) != "float64":
        pytest.skip("JAX has no float64 unless it is switched on for the whole process")
    kernel.assign(values @ rotation)
    (record,) = conditioning_report(model).records
    assert record["numerical_rank"] == 6
    np.testing.assert_allclose(record["raw_condition_number"], 1e10, rtol=1e-3)
    # As rows the units mix all directions, so that their scales are of no help.
    assert record["with_row_equilibration"] > 1e8


def test_infinite_kernels_are_told_as_such():
    (record,) = conditioning_report(dense(np.full((4, 3), np.inf, "float32"))).records
    assert not record["is_finite"]
    assert np.isnan(record["row_norm_spread"])


def test_unbuilt_conditioned_layers_are_named():
    model = keras.Sequential([ConditionedDense(3, name="unbuilt")])
    with pytest.raises(ValueError, match=r"conditioned layers are built. .*\['unbuilt'\] are not"):
        conditioning_report(model)


def test_file_in_place_of_a_model_is_refused():
    with pytest.raises(TypeError, match=r"Keras model or layer.*'model.keras'.*load_model\(\)"):
        conditioning_report("model.keras")


def test_methods_to_try_are_given_under_either_name():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    tried = ["row_equilibration", {"class_name": "NewtonOrthogonalization", "config": {}}]
    report = conditioning_report(model, kernel_conditioners=tried)
    assert report.methods == ["row_equilibration", "newton_orthogonalization"]
    assert conditioning_report(model, methods=tried).records == report.records
    assert conditioning_report(model, kernel_conditioners=[]).methods == []
    assert conditioning_report(model, methods=[]).methods == []
    with pytest.raises(ValueError, match=r"without `methods`, which is its earlier name. Received"):
        conditioning_report(model, [], methods=[])
    assert conditioning_report(model, RowEquilibration).methods == ["row_equilibration"]
    assert repr(report) == f"<ConditioningReport: {str(report).splitlines()[-1]}>"
