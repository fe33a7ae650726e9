"""Runs of a comparison: each on its own, written down, and timed."""

import collections
import dataclasses
import json
import math
import os

import keras
import numpy as np
import pytest

from benchmarks.comparison import (
    examples,
    families,
    naming,
    run,
    search,
    step_times,
    training_runs,
    tuning,
)


@pytest.fixture
def small_families(monkeypatch):
    """Two families, made small."""
    pytest.importorskip("tyro", reason="needs the extra 'examples'")
    changes = {
        "deep": {"data": "digits", "train_images": 128, "depth": 3, "width": 8, "augment": False},
        "nerf": {
            "traced_size": 8, "depth": 3, "width": 8, "coarse_samples": 4, "fine_samples": 4,
            "steps_per_epoch": 4, "batch_size": 16,
        },
    }  # fmt: skip
    small = {
        name: dataclasses.replace(
            families.FAMILIES[name], changes={**each, "epochs": 2}, growths={"sgd": ()}
        )
        for name, each in changes.items()
    }
    monkeypatch.setattr(families, "FAMILIES", small)
    training_runs.data_of.cache_clear()
    training_runs.cells.cache_clear()


def run_of(normalization, seed=0, family="deep", **point):
    return tuning.Run(family, normalization, "sgd", "test", None, seed, search.Point(0.05, **point))


@pytest.mark.parametrize(("family", "mode"), [("deep", "kernel_norm"), ("nerf", "fixed")])
@pytest.mark.usefixtures("small_families")
def test_a_run_does_not_depend_on_those_before_it(family, mode):
    wanted, other = (
        run_of("row_equilibration", seed, family, scale=scale, mode=mode)
        for seed, scale in ((2, 0.7), (1, 1.3))
    )
    diverging = dataclasses.replace(
        other, point=search.Point(math.inf, 1.0, "initial_norm" if mode == "fixed" else mode)
    )
    alone = training_runs.perform(wanted)
    training_runs.cells.cache_clear()
    assert training_runs.perform(diverging)["status"] == "diverged"
    training_runs.perform(other)
    after = training_runs.perform(wanted)
    assert alone["status"] == "finished"
    assert len(alone["losses"]) == 2
    np.testing.assert_allclose(after["losses"], alone["losses"], rtol=1e-4)
    assert after["test"] == pytest.approx(alone["test"], rel=1e-4)


@pytest.mark.usefixtures("small_families")
def test_gains_and_scales_are_those_of_the_point():
    def effective(mode, scale):
        training_runs.cells.cache_clear()
        cell = training_runs.cell("deep", "row_equilibration", "sgd")
        model, _ = cell.new(run_of("row_equilibration", scale=scale, mode=mode))
        layer = model.get_layer("hidden_1")
        kernels = map(keras.ops.convert_to_numpy, (layer.kernel, layer.conditioned_kernel))
        return [np.linalg.norm(kernel) for kernel in kernels]

    raw, fixed = effective("fixed", 0.5)
    assert fixed == pytest.approx(0.5 * math.sqrt(8), rel=1e-5)
    assert effective("scalar", 0.5) == pytest.approx([raw, fixed])
    for mode in ("initial_norm", "kernel_norm"):
        assert effective(mode, 0.5) == pytest.approx([0.5 * raw, 0.5 * raw], rel=1e-5)


@pytest.mark.usefixtures("small_families")
def test_the_matched_control_starts_at_the_scale_of_unit_rows():
    for mode, scale in (("fixed", 0.6), ("kernel_norm", 1.7), ("scalar", 0.6)):
        point = {"mode": mode, "scale": scale}
        kernels = []
        for name in ("row_equilibration", "none, scale matched"):
            training_runs.cells.cache_clear()
            cell = training_runs.cell("deep", name, "sgd")
            model, _ = cell.new(run_of(name, **point))
            layer = model.get_layer("hidden_1")
            kernel = getattr(layer, "conditioned_kernel", layer.kernel)
            kernels.append(keras.ops.convert_to_numpy(kernel))
        np.testing.assert_allclose(*kernels, rtol=1e-4, atol=1e-6)
        assert type(layer) is keras.layers.Dense


@pytest.mark.usefixtures("small_families")
def test_runs_that_diverge_or_fail_are_kept_as_such(monkeypatch):
    diverging = tuning.Run("deep", "none", "sgd", "tune", 3, 0, search.Point(math.inf))
    record = training_runs.perform(diverging)
    assert (record["status"], record["score"]) == ("diverged", None)
    measured = {name: value for name, value in record.items() if name != "rate"}
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured

    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    family = families.FAMILIES["deep"]
    monkeypatch.setattr(family.module, "train", fail)
    record = training_runs.perform(dataclasses.replace(diverging, point=search.Point(0.1)))
    assert (record["status"], record["error"]) == ("failed", "RuntimeError: out of memory")
    # It is tried once more, and not for ever.
    (again,) = (run for run in tuning.pending("deep", "sgd", [record]) if run.key == diverging.key)
    assert again.key not in {run.key for run in tuning.pending("deep", "sgd", [record, record])}


@pytest.mark.usefixtures("small_families")
def test_compare_writes_every_run_down(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "POINTS", 2)
    monkeypatch.setattr(tuning, "GROWTHS", 0)
    monkeypatch.setattr(search, "REFINEMENTS", 2)
    monkeypatch.setattr(tuning, "TEST_SEEDS", (1,))
    names = ["none", "row_equilibration"]
    monkeypatch.setattr(families.Family, "normalizations", lambda *_: names)
    monkeypatch.setattr(run.Processes, "perform", lambda _, runs: map(training_runs.perform, runs))
    words = ["--families", "deep", "--optimizers", "sgd", "--results", str(tmp_path)]
    options = run.parse(words)
    run.compare(options)
    records = [json.loads(line) for line in (tmp_path / "deep.jsonl").read_text().splitlines()]
    counts = collections.Counter(r["phase"] for r in records)
    assert counts == {"tune": 4, "refine": 4, "test": 2, "default": 1}
    for record in records:
        assert record["versions"]["keras"] == keras.__version__
        assert "cores" in record["machine"]
        assert record["seconds"] > 0.0
    tested = [r for r in records if r["phase"] == "test"]
    assert all(0.0 <= r["test"] <= 1.0 and len(r["condition_numbers"]) == 3 for r in tested)
    assert all(r["largest_eigenvalue"] > 0.0 for r in tested)
    # Nothing is left to do.
    run.compare(options)
    assert len((tmp_path / "deep.jsonl").read_text().splitlines()) == len(records)
    changed = dataclasses.replace(families.FAMILIES["deep"], scales=(0.1, 10.0))
    monkeypatch.setitem(families.FAMILIES, "deep", changed)
    with pytest.raises(ValueError, match=r"of this setting and backend.*Name another folder"):
        run.compare(options)


@dataclasses.dataclass(frozen=True)
class Named:
    """What stands for a run of a method."""

    normalization: str
    number: int


def test_records_come_from_other_processes_one_by_one(monkeypatch):
    monkeypatch.setattr(run, "perform", perform_echo)
    runs = [Named("first", 1), Named("second", 2), Named("first", 3)]
    with run.Processes([0, 0]) as processes:
        records = list(processes.perform(runs))
        # In the opposite order, to the same processes.
        records += processes.perform(runs[1::-1])
    assert sorted(record["doubled"] for record in records) == [2, 2, 4, 4, 6]
    processes = {record["process"]: set() for record in records}
    for record in records:
        processes[record["process"]].add(record["doubled"])
    assert sorted(map(sorted, processes.values())) == [[2, 6], [4]]
    assert os.getpid() not in processes


def perform_echo(runs):
    for each in runs:
        run._results.put({"doubled": 2 * each.number, "process": os.getpid()})


@pytest.mark.usefixtures("small_families")
def test_step_times_are_measured_in_turn(tmp_path, monkeypatch):
    names = ["none", "none, scale tuned", "weight_normalization", "row_equilibration"]
    monkeypatch.setattr(families.Family, "normalizations", lambda *_: names)
    monkeypatch.setattr(training_runs, "start", lambda core: None)
    monkeypatch.setitem(families.FAMILIES, "pruned", families.FAMILIES["deep"])
    for name in ("deep", "pruned"):
        (tmp_path / f"{name}.jsonl").touch()
    step_times.main(["--rounds", "2", "--results", str(tmp_path)])
    measured = json.loads((tmp_path / "step-times.json").read_text())
    assert {name: set(cells) for name, cells in measured.items()} == {
        "deep": {*families.OPTIMIZERS}
    }
    for found in measured["deep"].values():
        assert found["versions"]["keras"] == keras.__version__
        # 128 images in batches of 64.
        assert found["steps"] == 2
        # Tuning the scale changes nothing about a step.
        assert set(found["seconds"]) == {*names} - {"none, scale tuned"}
        assert all(len(own) == 2 and min(own) > 0.0 for own in found["seconds"].values())
    # Those of other families and optimizers stay.
    step_times.main(["--rounds", "1", "--optimizers", "sgd", "--results", str(tmp_path)])
    cells = json.loads((tmp_path / "step-times.json").read_text())["deep"]
    assert [len(cells[optimizer]["seconds"]["none"]) for optimizer in ("sgd", "adamw")] == [1, 2]


def test_settings_are_those_of_the_examples():
    pytest.importorskip("tyro", reason="needs the extra 'examples'")
    assert {f.example for f in families.FAMILIES.values()} == {
        "deep",
        "cnn",
        "vit",
        "nerf",
        "shape",
    }
    for family in families.FAMILIES.values():
        options = family.options(optimizer="adamw")
        assert options.optimizer == "adamw"
        for optimizer in family.rates:
            for name in family.normalizations(optimizer):
                check_name(name)


def check_name(name):
    """Whether the examples read a name as the comparison does."""
    normalizations = examples.module("common.normalizations")
    parsed = normalizations.parse(name.partition(",")[0])
    assert parsed.activations == naming.base_of(name)
    words = [*parsed.weights, *(m for m in normalizations.MODIFIERS if getattr(parsed, m))]
    own = "" if "," in name or name == naming.base_of(name) else naming.without_base(name)
    assert "+".join(words) == own


@pytest.mark.usefixtures("small_families")
@pytest.mark.parametrize("name", ["deep", "nerf"])
def test_the_score_of_each_epoch_is_known_before_the_next(name):
    family, seen = families.FAMILIES[name], []
    data, options = training_runs.data_of(name), family.options()
    model = family.module.build("none", data, options)
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda _, logs: seen.append(logs[family.score])
    )
    history = family.module.train(model, data, options, [note])
    assert history[family.score] == seen
    assert len(seen) == options.epochs


@pytest.mark.usefixtures("small_families")
def test_a_hopeless_run_of_the_search_is_stopped():
    def run_at(rate, phase="tune", seed=0):
        index = None if phase == "test" else 0
        return tuning.Run("deep", "none", "sgd", phase, index, seed, search.Point(rate))

    good = training_runs.perform(run_at(0.1))
    assert good["status"] == "finished"
    # Two classes of ten at most, by constant outputs.
    cell = training_runs.cell("deep", "none", "sgd")
    assert cell.best["scores"] == good["scores"]
    cell.best["scores"] = [0.9, 0.9]
    stopped = training_runs.perform(run_at(1e-9))
    assert (stopped["status"], stopped["score"], len(stopped["scores"])) == ("stopped", None, 1)
    assert cell.best["scores"] == [0.9, 0.9]
    # Only in the search.
    assert training_runs.perform(run_at(1e-9, "test"))["status"] == "finished"


def test_hopeless():
    best = [0.4, 0.6, 0.8, 0.9]
    assert search.is_hopeless([0.1], best, 4)
    assert not search.is_hopeless([0.21], best, 4)
    assert not search.is_hopeless([0.1], None, 4)
    # Not before a quarter of the epochs.
    assert not search.is_hopeless([0.1], best, 8)
    assert search.is_hopeless([0.1, None], best, 8)
    assert not search.is_hopeless([0.5, 0.1, 0.1], best, 4)
