import csv
import sys

import keras
import numpy as np
import pytest

from keras_wcond import (
    Conditioned,
    ConditionedDense,
    ConditioningMonitor,
    condition_number,
    effective_condition_number,
    singular_values,
)
from keras_wcond.conditioners import NewtonOrthogonalization
from tests.helpers import normal, to_numpy


def network():
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            Conditioned(keras.layers.SimpleRNN(6), name="recurrent"),
            ConditionedDense(5, activation="relu", name="hidden"),
            keras.layers.Dense(2, name="last"),
        ]
    )
    model.compile("adam", "mse")
    return model


def fit(model, *callbacks, epochs=3, **arguments):
    arguments |= {"epochs": epochs, "batch_size": 8, "verbose": 0, "shuffle": False}
    return model.fit(
        normal(24, 5, 4), normal(24, 2, seed=1), callbacks=list(callbacks), **arguments
    )


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.kernels = []

    def on_train_begin(self, logs=None):
        self._take()

    def on_epoch_end(self, epoch, logs=None):
        self._take()

    def _take(self):
        self.kernels.append(np.array(to_numpy(self.model.get_layer("hidden").kernel)))


def test_measures_are_those_of_the_functions():
    model, monitor, recorder = network(), ConditioningMonitor(), Recorder()
    fit(model, monitor, recorder)
    layer = model.get_layer("hidden")
    own = [record for record in monitor.records if record["kernel"] == "hidden/kernel"]
    assert [(record["epoch"], record["step"]) for record in own] == [(0, 0), (1, 3), (2, 6), (3, 9)]
    last = own[-1]
    assert last["raw_condition_number"] == condition_number(layer.kernel)
    assert last["condition_number"] == condition_number(layer.conditioned_kernel)
    assert last["largest_singular_value"] == singular_values(layer.conditioned_kernel)[0]
    np.testing.assert_allclose(last["row_norm_spread"], 1.0, rtol=1e-5)
    assert np.isnan(own[0]["relative_update"])
    for record, old, new in zip(own[1:], recorder.kernels, recorder.kernels[1:], strict=False):
        expected = np.linalg.norm(new - old) / np.linalg.norm(old)
        np.testing.assert_allclose(record["relative_update"], expected, rtol=1e-4)
        assert record["relative_update"] > 0.0
    assert monitor.seconds > 0.0


def test_all_kernels_are_followed_by_their_paths():
    monitor = ConditioningMonitor()
    fit(network(), monitor, epochs=1)
    kernels = [record["kernel"] for record in monitor.records[:4]]
    assert [path.split("/")[-1] for path in kernels] == [
        "kernel",
        "recurrent_kernel",
        "kernel",
        "kernel",
    ]
    plain = [r for r in monitor.records if r["kernel"] == "last/kernel"]
    assert all(r["raw_condition_number"] == r["condition_number"] for r in plain)


def test_nothing_changes_for_the_model():
    with_monitor, without = network(), network()
    measured = fit(with_monitor, ConditioningMonitor(unit="step")).history["loss"]
    assert measured == fit(without).history["loss"]
    for one, other in zip(with_monitor.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_history_holds_what_was_measured_after_the_start():
    monitor = ConditioningMonitor(every=2)
    history = fit(network(), monitor, epochs=5).history
    values = history["hidden/kernel/condition_number"]
    own = [r["condition_number"] for r in monitor.records if r["kernel"] == "hidden/kernel"]
    assert values == own[1:]
    assert [r["epoch"] for r in monitor.records if r["kernel"] == "hidden/kernel"] == [0, 2, 4]
    assert len(history["loss"]) == 5


@pytest.mark.parametrize(("every", "expected"), [(1, [0, 1, 2, 3, 4, 5, 6]), (4, [0, 4])])
def test_steps_can_be_the_unit(every, expected):
    monitor = ConditioningMonitor(every=every, unit="step")
    fit(network(), monitor, epochs=2)
    steps = [r["step"] for r in monitor.records if r["kernel"] == "last/kernel"]
    assert steps == expected


def test_csv_file_has_every_record(tmp_path):
    monitor = ConditioningMonitor(csv_path=tmp_path / "new" / "kernels.csv")
    fit(network(), monitor)
    with (tmp_path / "new" / "kernels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(monitor.records)
    for row, record in zip(rows, monitor.records, strict=True):
        assert row["kernel"] == record["kernel"]
        assert int(row["step"]) == record["step"]
        np.testing.assert_equal(float(row["condition_number"]), record["condition_number"])


def test_tensorboard_reads_its_files(tmp_path):
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is missing"
    )
    monitor = ConditioningMonitor(log_dir=tmp_path)
    fit(network(), monitor)
    events = reader.EventAccumulator(str(tmp_path), size_guidance={reader.TENSORS: 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    assert "condition_number/hidden/kernel" in tags
    assert len(tags) == 4 * 8
    read = events.Tensors("condition_number/hidden/kernel")
    own = [r for r in monitor.records if r["kernel"] == "hidden/kernel"]
    assert [event.step for event in read] == [r["step"] for r in own]
    values = [event.tensor_proto.float_val[0] for event in read]
    np.testing.assert_allclose(values, [r["condition_number"] for r in own], rtol=1e-6)
    assert len(events.Tensors("relative_update/hidden/kernel")) == len(own) - 1


def test_plot_has_a_line_per_kernel_and_measure(tmp_path):
    monitor = ConditioningMonitor(plot_path=tmp_path / "kernels.png")
    fit(network(), monitor)
    assert (tmp_path / "kernels.png").read_bytes().startswith(b"\x89PNG")
    figure = monitor.plot()
    assert [len(axes.lines) for axes in figure.axes] == [4] * 6
    assert "4 measurements in" in figure.get_suptitle()


def test_plot_of_many_kernels_has_a_bar_of_colors():
    layers = [keras.layers.Dense(3) for _ in range(13)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("sgd", "mse")
    monitor = ConditioningMonitor()
    model.fit(normal(8, 4), normal(8, 3), verbose=0, callbacks=[monitor])
    figure = monitor.plot()
    assert [len(axes.lines) for axes in figure.axes[:6]] == [13] * 6
    assert figure.axes[6].get_ylabel() == "kernel, in the model's order"


def test_another_training_goes_on_where_the_last_one_ended(tmp_path):
    model, monitor = network(), ConditioningMonitor(csv_path=tmp_path / "kernels.csv")
    fit(model, monitor, epochs=2)
    fit(model, monitor, epochs=3, initial_epoch=2)
    own = [record for record in monitor.records if record["kernel"] == "last/kernel"]
    assert [(r["epoch"], r["step"]) for r in own] == [(0, 0), (1, 3), (2, 6), (3, 9)]
    assert own[-1]["relative_update"] > 0.0
    with (tmp_path / "kernels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [r["step"] for r in monitor.records]


def test_model_that_its_first_step_builds_is_measured_from_then_on():
    model = keras.Sequential([ConditionedDense(3), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    monitor = ConditioningMonitor()
    model.fit(normal(8, 4), normal(8, 2), epochs=2, verbose=0, callbacks=[monitor])
    assert {1, 2} <= {record["epoch"] for record in monitor.records} <= {0, 1, 2}


def test_steps_are_those_of_the_optimizer():
    if keras.backend.backend() == "torch":
        pytest.skip("Keras has no `steps_per_execution` on PyTorch")
    model, monitor = network(), ConditioningMonitor()
    model.compile("sgd", "mse", steps_per_execution=2)
    fit(model, monitor, epochs=2)
    steps = [r["step"] for r in monitor.records if r["kernel"] == "last/kernel"]
    assert steps == [0, 3, 6]


def test_kernels_that_lose_a_rank_are_told_over_the_rank():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            ConditionedDense(6, kernel_conditioner=NewtonOrthogonalization(25), name="newton"),
        ]
    )
    model.compile("sgd", "mse")
    monitor = ConditioningMonitor()
    model.fit(normal(8, 6), normal(8, 6), verbose=0, callbacks=[monitor])
    assert monitor.records[-1]["condition_number"] > 1e5
    assert monitor.records[-1]["effective_condition_number"] < 1.01
    assert monitor.records[-1]["numerical_rank"] == 5
    raw = effective_condition_number(model.layers[0].kernel)
    assert monitor.records[-1]["raw_effective_condition_number"] == raw
    drawn = {axes.get_title() for axes in monitor.plot().axes}
    assert drawn == {
        "raw effective condition number",
        "numerical rank",
        "effective condition number",
        "largest singular value",
        "row norm spread",
        "relative update",
    }


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"`unit` to be 'epoch' or 'step'. Received: unit='batch'"):
        ConditioningMonitor(unit="batch")
    with pytest.raises(ValueError, match=r"`every` to be a positive integer. Received: every=0"):
        ConditioningMonitor(every=0)


def test_model_without_kernels_is_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"model with kernels that `keras_wcond` knows"):
        model.fit(normal(4, 2), normal(4, 2), verbose=0, callbacks=[ConditioningMonitor()])


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(ImportError, match=r"TensorBoard to be installed.*pip install tensorboard"):
        fit(network(), ConditioningMonitor(log_dir=tmp_path))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"Matplotlib to be installed.*pip install matplotlib"):
        ConditioningMonitor().plot()
