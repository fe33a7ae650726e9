"""The overhead of conditioning, measured and reported on something small."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from benchmarks.overhead import (
    growth,
    memory,
    networks,
    precisions,
    products,
    report,
    run,
    steps,
    tables,
)
from benchmarks.shared import environment


def small_case():
    def network(x, kit):
        return kit(keras.layers.Dense(4, activation="relu"), x)

    return networks.Case(network, (4,), 2, {"width": 4, "depth": 1})


def test_overhead_measures_and_reports(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "CASES", {"small": small_case()})
    words = ["--cases", "small", "--budget", "0.01", "--results", str(tmp_path)]
    run.main(words)
    on_gpu = environment.gpu() is not None
    path = tmp_path / run.file_name(keras.backend.backend(), on_gpu)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    names = [record["normalization"] for record in records]
    assert set(names) >= {*networks.OURS, *networks.BASELINES, *networks.BY_OPTIMIZER}
    assert set(names) >= {networks.AGAIN, networks.ONE_STEP}
    assert len(names) == len(set(names))
    for record in records:
        assert record["status"] == "measured"
        assert min(record["training"] + record["inference"]) > 0.0
        assert len(record["training"]) >= 5
    if keras.backend.backend() == "torch":
        (twin,) = [r for r in records if r["normalization"] == "PyTorch weight_norm"]
        assert twin["baseline"] == networks.TORCH_PLAIN
    run.main(words)  # What is there already is not measured again.
    assert len(path.read_text().splitlines()) == len(records)

    with monkeypatch.context() as patch:
        patch.setattr(environment, "gpu", lambda: "Some GPU")
        run.main([*words, "--networks", "row_equilibration", "BatchNormalization"])
        with pytest.raises(ValueError, match=r"computes on the CPU.*--memory with .* on Some GPU"):
            run.main([*words, "--memory"])
    of_gpu = run.file_name(keras.backend.backend(), on_gpu=True)
    (record, *_) = [json.loads(line) for line in (tmp_path / of_gpu).read_text().splitlines()]
    assert "Some GPU" in record["machine"]
    assert record["training_ms"] > 0.0
    assert record["training_ms_plain"] > 0.0

    points = {"width": [(8, 4, 1), (16, 4, 1)], "batch": [(8, 2, 1)], "depth": []}
    monkeypatch.setattr(growth, "SWEEPS", points)
    growth.main(["--budget", "0.01", "--results", str(tmp_path)])
    grown = [json.loads(line) for line in (tmp_path / "growth.jsonl").read_text().splitlines()]
    assert [record["point"] for record in grown] == [[8, 4, 1], [16, 4, 1], [8, 2, 1]]
    assert all(record["floor"] > 1.0 for record in grown)

    peaks = [
        {"case": "small", "normalization": name, "peak": peak * 2**20}
        for name, peak in ((networks.PLAIN, 10), ("row_equilibration", 13))
    ]
    path_of_peaks = tmp_path / run.file_name(keras.backend.backend(), on_gpu, memory=True)
    path_of_peaks.write_text("".join(json.dumps(peak) + "\n" for peak in peaks))

    for record in records:
        if record["normalization"] == "newton_orthogonalization":
            record["machine"] = "another machine"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))

    report.main(["--results", str(tmp_path), "--output", str(tmp_path)])
    page = (tmp_path / "overhead.md").read_text(encoding="utf-8")
    assert f"keras {keras.__version__}" in page
    assert records[0]["machine"] in page
    before, _, after = page.partition("The other methods, measured with:\n")
    assert "another machine" in after
    assert "another machine" not in before
    assert page.count(f"## {keras.backend.backend()} (GPU)\n") == 1
    assert "| plain, ms " in page
    assert "| row_equilibration " in page
    # In the tables of training steps on a CPU, and not in those of inference.
    assert page.count(f"| {networks.SELDOM} ") == 1
    assert "| width 16, batch 128, 3 layers | " in page
    assert page.count("+3.0 ") == 1
    for name in ("overhead-gpu.png", "overhead-growth.png"):
        assert (tmp_path / name).stat().st_size > 0


def test_overhead_tells_where_a_baseline_is_cheaper():
    case = next(iter(networks.CASES))

    def records(**training):
        start = {"case": case, "status": "measured"}
        return [
            {**start, "normalization": name, "training": [ratio - 0.01, ratio, ratio + 0.01]}
            for name, ratio in training.items()
        ]

    dearer = records(row_equilibration=1.2, BatchNormalization=1.1)
    assert f"{case}: BatchNormalization (1.20 against 1.10)" in tables.dearer_than_baselines(
        dearer, "training"
    )
    alike = records(row_equilibration=1.105, BatchNormalization=1.1)
    assert tables.dearer_than_baselines(alike, "training").startswith("In no case")


def test_growth_is_fitted_by_a_power_law():
    constant, power = growth.fitted([(x, 3.0 * x**-0.5) for x in (1.0, 4.0, 9.0)])
    assert (constant, power) == pytest.approx((3.0, -0.5))


def test_overhead_leaves_out_what_takes_too_long(monkeypatch):
    monkeypatch.setattr(run, "LONGEST_STEP", 0.0)
    case = small_case()
    (record,) = run.measure("small", case, ["row_equilibration"], 0.01, 5)
    assert record["status"] == "a step takes over 0 s"


def test_peak_of_memory_is_that_of_the_steps(monkeypatch):
    held = []

    def step():
        held.append(np.ones(64 * 2**20, "uint8"))
        held.pop()

    monkeypatch.setattr(steps, "of", lambda *names: {"training": step})
    monkeypatch.setitem(networks.CASES, "small", None)
    printed = []
    monkeypatch.setattr("builtins.print", lambda *words, **rest: printed.extend(words))
    memory.print_peak("small", "plain", 2)
    assert 60 * 2**20 < printed[-1] < 90 * 2**20


def test_peak_of_memory_is_measured_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert memory.peak_bytes("Dense 256, batch 32", "row_equilibration", 1) >= 0


def test_memory_that_a_backend_tells_is_written_down(tmp_path, monkeypatch):
    told = {"plain": 5, "row_equilibration": 8}
    monkeypatch.setattr(steps, "of", lambda case, name: {"memory": lambda: told[name]})
    monkeypatch.setattr(environment, "environment", lambda *own: {"backend": "jax"})
    monkeypatch.setattr(environment, "gpu", lambda: None)
    case = small_case()
    monkeypatch.setattr(networks, "CASES", {"small": case})
    run.main(["--memory", "--networks", "row_equilibration", "--results", str(tmp_path)])
    written = (tmp_path / "jax-memory.jsonl").read_text().splitlines()
    assert {r["normalization"]: r["peak"] for r in map(json.loads, written)} == told


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="needs a backend other than TensorFlow"
)
def test_a_step_takes_memory_for_its_activations():
    case = small_case()
    few, many = (
        steps.of(dataclasses.replace(case, batch=batch), "row_equilibration")["memory"]()
        for batch in (2, 4096)
    )
    activations = 4096 * 4 * np.dtype("float32").itemsize
    assert few < activations <= many


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="needs PyTorch")
def test_the_peak_is_that_of_the_tensors_a_step_makes():
    import torch

    older = [torch.empty(64)]

    def step():
        older.pop()
        first = torch.empty(1000).exp()
        del first
        older.append(torch.empty(16))

    assert steps.peak_of_tensors(step) == 2 * 1000 * 4


def test_products_are_as_many_as_the_methods_take():
    from tests.helpers import operations

    names = {"dot_general", "BatchMatMulV2", "MatMul", "bmm", "mm"}
    for method in products.METHODS:
        for shape in ((8, 8), (8, 32), (32, 8)):
            kernel = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))[0]
            kernel = kernel[: shape[0], : shape[1]].astype("float32")
            found = [
                sum(name in names for name in operations(conditioner, kernel))
                for conditioner in (
                    products.differentiated(method),
                    products.conditioner_of_products(method),
                )
            ]
            assert found[0] == found[1]


def test_optimizers_by_name():
    case = small_case()
    model = case.model(networks.PLAIN)
    configs = {
        name: case.optimizer(name, model, 0.1).get_config() for name in networks.BY_OPTIMIZER[:3]
    }
    assert [configs[name]["every"] for name in (networks.STORED, networks.SELDOM)] == [1, 8]
    assert configs[networks.UPDATES]["gain"] == "muon"
    assert isinstance(case.optimizer(networks.PLAIN, model, 0.1), keras.optimizers.SGD)
    conditioned = case.model(networks.ONE_STEP).layers[-1]
    assert not conditioned.kernel_conditioner.differentiate_multiplier


def test_what_is_done_seldom_is_measured_over_eight_steps():
    calls = []
    steps.repeated(lambda: calls.append(1), 8)()
    assert len(calls) == 8
    assert networks.plain_of(networks.SELDOM) == networks.EIGHT_STEPS


def test_precisions_are_measured_and_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(precisions, "CASES", {"small": lambda batch: small_case()})
    set_to = []
    monkeypatch.setattr(precisions, "set_precision", set_to.append)
    precisions.main(["--budget", "0.01", "--results", str(tmp_path)])
    assert set_to == ["float32", "tf32", "bfloat16"]
    (path,) = tmp_path.iterdir()
    assert path.name == f"{keras.backend.backend()}-precisions.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(records) == 3 * len(precisions.NAMES)
    table = capsys.readouterr().out
    for name in ("plain, ms", *precisions.NAMES):
        (row,) = [line for line in table.splitlines() if line[2:].split(" |")[0].strip() == name]
        assert row.count("|") == 2 + 3


@pytest.mark.parametrize("precision", precisions.PRECISIONS)
def test_precisions_can_be_set(precision):
    before = keras.config.dtype_policy()
    try:
        precisions.set_precision(precision)
        expected = "mixed_bfloat16" if precision == "bfloat16" else "float32"
        assert keras.config.dtype_policy().name == expected
    finally:
        precisions.set_precision("float32")
        keras.config.set_dtype_policy(before)
