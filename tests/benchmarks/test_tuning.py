"""The comparison: equal budgets, resumable records, and runs that do not depend on each other."""

import collections
import dataclasses
import json
import math
import os

import keras
import numpy as np
import pytest

from benchmarks.comparison import examples, families, step_times, training_runs, tuning
from benchmarks.comparison import run as comparison
from benchmarks.shared import records as record_lines


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
        name: dataclasses.replace(families.FAMILIES[name], changes={**each, "epochs": 2})
        for name, each in changes.items()
    }
    monkeypatch.setattr(families, "FAMILIES", small)
    training_runs.data_of.cache_clear()
    training_runs.cell.cache_clear()


def play(family, score, records=(), until=None):
    """Records of all runs, in the order in which they become pending."""
    records = list(records)
    while runs := tuning.pending("deep", "sgd", records, family):
        for run in runs:
            if until is not None and len(records) >= until:
                return records
            record = {**dataclasses.asdict(run), **dataclasses.asdict(run.point)}
            value = score(run)
            record |= {"score": value, "status": "diverged" if value is None else "finished"}
            records.append(record)
    return records


def closeness(rate, scale=1.0):
    """A score that is best at one rate and scale."""
    return lambda run: (
        -abs(math.log(run.point.rate / rate)) - abs(math.log(run.point.scale / scale))
    )


def test_every_method_has_the_same_budget():
    family = families.FAMILIES["deep"]
    records = play(family, closeness(0.02, 1.1))
    counts = collections.Counter((r["normalization"], r["phase"]) for r in records)
    tuned = {counts[name, "tune"] for name in family.normalizations()}
    assert len(tuned) == 1
    assert tuned.pop() >= 16
    assert {counts[name, "refine"] for name in family.normalizations()} == {6}
    assert {counts[name, "test"] for name in family.normalizations()} == {5}
    methods = [name for name in family.normalizations() if counts[name, "default"]]
    assert len(methods) == 2 * 7 + 4
    assert {counts[name, "default"] for name in methods} == {5}
    assert len({tuning.key_of(r) for r in records}) == len(records)


def test_all_methods_share_rates_and_modes():
    family = families.FAMILIES["deep"]
    runs = tuning.pending("deep", "sgd", [], family)
    rates = collections.defaultdict(set)
    for run in runs:
        rates[run.index].add(run.point.rate)
    assert all(len(found) == 1 for found in rates.values())
    low, high = family.rates["sgd"]
    assert all(low <= rate <= high for (rate,) in rates.values())
    # Even in the logarithm: one in each sixteenth.
    cells = {int(16 * math.log(rate / low) / math.log(high / low)) for (rate,) in rates.values()}
    assert len(cells) == 16
    modes = [run.point.mode for run in runs if run.normalization == "row_equilibration"]
    assert collections.Counter(modes) == dict.fromkeys(families.MODES, 4)
    late = {"none, scale matched", "layer, scale matched", *family.next}
    assert {run.normalization for run in runs} == set(family.normalizations()) - late
    for name in ("none", "layer"):
        points = [run.point for run in runs if run.normalization == name]
        assert {(point.scale, point.mode) for point in points} == {(1.0, None)}
    for name in ("none, scale tuned", "layer, scale tuned", "weight_normalization"):
        points = [run.point for run in runs if run.normalization == name]
        assert len({point.scale for point in points}) == 16
        assert {point.mode for point in points} == {None}


def test_a_winner_at_an_edge_grows_the_range_for_all():
    family = dataclasses.replace(families.FAMILIES["deep"], activations=())
    low, high = family.rates["sgd"]
    records = play(family, lambda run: run.point.rate)
    tuned = [r for r in records if r["phase"] == "tune"]
    for name in family.normalizations():
        rates = [r["rate"] for r in tuned if r["normalization"] == name]
        assert len(rates) == 16 + 3 * 4
        assert all(high < rate <= high * math.sqrt(10.0) for rate in rates[16:20])
        assert all(high * math.sqrt(10.0) < rate <= 10.0 * high for rate in rates[20:24])
    chosen = max(r["rate"] for r in records if r["phase"] == "refine")
    assert {r["rate"] for r in records if r["phase"] == "test"} == {chosen}
    records = play(family, lambda run: -run.point.rate)
    assert min(r["rate"] for r in records) < low / math.sqrt(10.0)


def test_the_default_gain_is_tried_at_the_rate_of_the_plain_network():
    family = families.FAMILIES["deep"]

    def score(run):
        target = 0.1 if run.normalization == "layer" else 0.01
        return -abs(math.log(run.point.rate / target))

    records = play(family, score)

    def rates(phase, name):
        chosen = [r for r in records if (r["phase"], r["normalization"]) == (phase, name)]
        assert {(r["scale"], r["mode"]) for r in chosen} <= {(1.0, "fixed"), (1.0, None)}
        return {r["rate"] for r in chosen}

    assert rates("default", "row_equilibration") == rates("test", "none")
    assert rates("default", "layer+row_equilibration") == rates("test", "layer")
    assert rates("test", "none") != rates("test", "layer")


def test_a_comparison_goes_on_where_it_was():
    family = families.FAMILIES["deep"]
    whole = play(family, closeness(0.02, 1.1))
    for count in (0, 100, 288, 400, len(whole) - 1, len(whole)):
        resumed = play(family, closeness(0.02, 1.1), whole[:count])
        assert {tuning.key_of(r) for r in resumed} == {tuning.key_of(r) for r in whole}
        assert len(resumed) == len(whole)


def test_what_diverges_everywhere_is_not_tested():
    family = families.FAMILIES["deep"]
    records = play(family, lambda run: None if "newton" in run.normalization else run.point.rate)
    newton = [r for r in records if r["normalization"] == "newton_orthogonalization"]
    assert {r["phase"] for r in newton} == {"tune", "default"}


def test_the_best_point_is_refined_from_another_seed():
    family = families.FAMILIES["deep"]
    lucky = {}

    def score(run):
        if run.phase == "tune" and run.index == 7:
            lucky[run.normalization] = run.point
            return 1.0
        # What the lucky point owed to its seed is gone; half its rate and scale are better.
        return -run.point.rate - run.point.scale

    records = play(family, score)
    for name in family.normalizations():
        refined = [r for r in records if (r["normalization"], r["phase"]) == (name, "refine")]
        start = lucky[name]
        assert (refined[0]["rate"], refined[0]["scale"]) == (start.rate, start.scale)
        assert {r["mode"] for r in refined} == {start.mode}
        assert {r["seed"] for r in refined} == {6}
        factors = [(r["rate"] / start.rate, r["scale"] / start.scale) for r in refined]
        assert all(0.5 <= rate <= 2.0 and 2 / 3 <= scale <= 1.5 for rate, scale in factors)
        assert len({rate for rate, _ in factors}) == 6
        # The scale of the network alone, and of the one that is matched, is not free.
        is_free = name not in ("none", "layer") and "matched" not in name
        assert len({scale for _, scale in factors}) == (6 if is_free else 1)
        best = max(refined, key=lambda r: r["score"])
        tested = [r for r in records if (r["normalization"], r["phase"]) == (name, "test")]
        assert {(r["rate"], r["scale"]) for r in tested} == {(best["rate"], best["scale"])}


def test_what_failed_once_is_not_known_yet():
    family = dataclasses.replace(families.FAMILIES["deep"], activations=())
    whole = play(family, closeness(0.02, 1.1))
    records = [r for r in whole if r["phase"] == "tune"]
    failed = {**records[0], "status": "failed", "score": None}
    runs = tuning.pending("deep", "sgd", [*records[1:], failed], family)
    assert [run.key for run in runs] == [tuning.key_of(failed)]
    runs = tuning.pending("deep", "sgd", [*records[1:], failed, failed], family)
    assert "refine" in {run.phase for run in runs}


def test_points_are_chosen_when_all_that_they_rest_on_is_there():
    family = dataclasses.replace(families.FAMILIES["deep"], activations=())
    whole = play(family, closeness(0.02, 1.1))

    def phases_without(name, phase):
        records = [r for r in whole if (r["normalization"], r["phase"]) != (name, phase)]
        records = [r for r in records if r["phase"] in ("tune", "refine")]
        runs = tuning.pending("deep", "sgd", records, family)
        return {run.phase for run in runs if run.normalization == "newton_orthogonalization"}

    assert phases_without("newton_orthogonalization", "refine") == {"refine"}
    # A range may yet grow for all.
    records = [r for r in whole if r["phase"] == "tune" and r["normalization"] != "none"]
    runs = tuning.pending("deep", "sgd", records, family)
    assert {(run.normalization, run.phase) for run in runs} == {("none", "tune")}
    # The default gain is tried at the rate that is chosen for the network alone.
    assert phases_without("none", "refine") == set()
    assert phases_without("none", "test") == {"test", "default"}


def test_what_diverges_from_another_seed_keeps_its_best_point():
    family = dataclasses.replace(families.FAMILIES["deep"], activations=())
    records = play(
        family, lambda run: None if run.phase == "refine" else -abs(run.point.rate - 0.02)
    )
    for name in family.normalizations():
        tuned = [r for r in records if (r["normalization"], r["phase"]) == (name, "tune")]
        best = max(tuned, key=lambda r: r["score"])
        assert tuning.winner(records, name) == best


def test_records_survive_being_cut_off(tmp_path, capsys):
    path = tmp_path / "deep" / "lines.jsonl"
    assert record_lines.read(path) == []
    for number in range(3):
        record_lines.append(path, {"number": number})
    content = path.read_bytes()
    path.write_bytes(content[:-6])
    assert record_lines.read(path) == [{"number": 0}, {"number": 1}]
    assert "line 3 was cut off and is run again" in capsys.readouterr().err
    record_lines.append(path, {"number": 3})
    assert [record["number"] for record in record_lines.read(path)] == [0, 1, 3]
    path.write_text('{"number": 0}\n{"numb\n{"number": 2}\n')
    with pytest.raises(ValueError, match=r"a JSON object in each line.*line 2 of .*lines.jsonl"):
        record_lines.read(path)


def run_of(normalization, seed=0, family="deep", **point):
    return tuning.Run(family, normalization, "sgd", "test", None, seed, tuning.Point(0.05, **point))


@pytest.mark.parametrize(("family", "mode"), [("deep", "kernel_norm"), ("nerf", "fixed")])
@pytest.mark.usefixtures("small_families")
def test_a_run_does_not_depend_on_those_before_it(family, mode):
    wanted, other = (
        run_of("row_equilibration", seed, family, scale=scale, mode=mode)
        for seed, scale in ((2, 0.7), (1, 1.3))
    )
    diverging = dataclasses.replace(
        other, point=tuning.Point(math.inf, 1.0, "initial_norm" if mode == "fixed" else mode)
    )
    alone = training_runs.perform(wanted)
    training_runs.cell.cache_clear()
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
        training_runs.cell.cache_clear()
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
            training_runs.cell.cache_clear()
            cell = training_runs.cell("deep", name, "sgd")
            model, _ = cell.new(run_of(name, **point))
            layer = model.get_layer("hidden_1")
            kernel = getattr(layer, "conditioned_kernel", layer.kernel)
            kernels.append(keras.ops.convert_to_numpy(kernel))
        np.testing.assert_allclose(*kernels, rtol=1e-4, atol=1e-6)
        assert type(layer) is keras.layers.Dense


@pytest.mark.usefixtures("small_families")
def test_runs_that_diverge_or_fail_are_kept_as_such(monkeypatch):
    diverging = tuning.Run("deep", "none", "sgd", "tune", 3, 0, tuning.Point(math.inf))
    record = training_runs.perform(diverging)
    assert (record["status"], record["score"]) == ("diverged", None)
    measured = {name: value for name, value in record.items() if name != "rate"}
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured

    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    family = families.FAMILIES["deep"]
    monkeypatch.setattr(family.module, "train", fail)
    record = training_runs.perform(dataclasses.replace(diverging, point=tuning.Point(0.1)))
    assert (record["status"], record["error"]) == ("failed", "RuntimeError: out of memory")
    # It is tried once more, and not for ever.
    (again,) = (run for run in tuning.pending("deep", "sgd", [record]) if run.key == diverging.key)
    assert again.key not in {run.key for run in tuning.pending("deep", "sgd", [record, record])}


@pytest.mark.usefixtures("small_families")
def test_compare_writes_every_run_down(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "POINTS", 2)
    monkeypatch.setattr(tuning, "GROWTHS", 0)
    monkeypatch.setattr(tuning, "REFINEMENTS", 2)
    monkeypatch.setattr(tuning, "TEST_SEEDS", (1,))
    monkeypatch.setattr(families.Family, "normalizations", lambda _: ["none", "row_equilibration"])
    monkeypatch.setattr(
        comparison.Processes, "perform", lambda _, runs: map(training_runs.perform, runs)
    )
    words = ["--families", "deep", "--optimizers", "sgd", "--results", str(tmp_path)]
    options = comparison.parse(words)
    comparison.compare(options)
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
    comparison.compare(options)
    assert len((tmp_path / "deep.jsonl").read_text().splitlines()) == len(records)
    changed = dataclasses.replace(families.FAMILIES["deep"], scales=(0.1, 10.0))
    monkeypatch.setitem(families.FAMILIES, "deep", changed)
    with pytest.raises(ValueError, match=r"of this setting and backend.*Name another folder"):
        comparison.compare(options)


@dataclasses.dataclass(frozen=True)
class Named:
    """What stands for a run of a method."""

    normalization: str
    number: int


def test_records_come_from_other_processes_one_by_one(monkeypatch):
    monkeypatch.setattr(comparison, "perform", perform_echo)
    runs = [Named("first", 1), Named("second", 2), Named("first", 3)]
    with comparison.Processes([0, 0]) as processes:
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
        comparison._results.put({"doubled": 2 * each.number, "process": os.getpid()})


def test_matched_networks_are_tuned_after_row_equilibration():
    family = families.FAMILIES["deep"]
    records = play(family, closeness(0.02, 1.1))
    for base in ("none", "layer"):
        rows = tuning.winner(records, tuning.with_base(base, "row_equilibration"))
        matched = [r for r in records if r["normalization"] == f"{base}, scale matched"]
        assert {(r["scale"], r["mode"]) for r in matched} == {(rows["scale"], rows["mode"])}
        assert len({r["rate"] for r in matched if r["phase"] == "tune"}) >= 16


def test_what_else_was_tried_has_no_say_in_the_ranges():
    family = dataclasses.replace(families.FAMILIES["deep"], activations=())
    without = dataclasses.replace(family, next=())

    def score(run):
        return run.point.rate if run.normalization in family.next else -abs(run.point.rate - 0.02)

    def tuning_of(family):
        return [r for r in play(family, score) if r["phase"] == "tune"]

    with_more = tuning_of(family)
    points = {r["rate"] for r in tuning_of(without)}
    assert {r["rate"] for r in with_more} == points
    # As many runs as the others have, at the same rates.
    for name in family.next:
        tuned = [r for r in with_more if r["normalization"] == name]
        assert len({r["rate"] for r in tuned}) == len(points)
    modes = {
        name: {r["mode"] for r in with_more if r["normalization"] == name} for name in family.next
    }
    assert modes["constraint"] == {None}
    # Stored rows of unit norm, kept, are a gain of 1 whatever the scale.
    assert modes["row_equilibration+constraint"] == {*families.MODES} - {"kernel_norm"}
    assert modes["row_equilibration+everywhere"] == {*families.MODES}
    assert len({r["scale"] for r in with_more if r["normalization"] == "constraint"}) == len(points)


@pytest.mark.usefixtures("small_families")
def test_step_times_are_measured_in_turn(tmp_path, monkeypatch):
    names = ["none", "none, scale tuned", "weight_normalization", "row_equilibration"]
    monkeypatch.setattr(families.Family, "normalizations", lambda _: names)
    monkeypatch.setattr(training_runs, "start", lambda core: None)
    monkeypatch.setitem(families.FAMILIES, "pruned", families.FAMILIES["deep"])
    for name in ("deep", "pruned"):
        (tmp_path / f"{name}.jsonl").touch()
    step_times.main(["--rounds", "2", "--results", str(tmp_path)])
    measured = json.loads((tmp_path / "step-times.json").read_text())
    assert {name: set(cells) for name, cells in measured.items()} == {"deep": {"sgd", "adamw"}}
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
        normalizations = examples.module("common.normalizations")
        for name in family.normalizations():
            parsed = normalizations.parse(name.partition(",")[0])
            assert parsed.activations == tuning.base_of(name)
            words = [*parsed.weights, *(["everywhere"] if parsed.everywhere else [])]
            words += ["constraint"] if parsed.constraint else []
            method = "constraint" if tuning.is_constraint(name) else tuning.method_of(name)
            assert "+".join(words) == method
