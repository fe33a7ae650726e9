"""The benchmarks run, on something small."""

import importlib.util
import json
import pathlib
import sys

import keras

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_model():
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.DepthwiseConv2D(3, activation="tanh")(x)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def test_conversions_measures_and_reports(tmp_path, monkeypatch):
    conversions = load("conversions")
    monkeypatch.setattr(conversions, "MODELS", {"small": small_model})
    arguments = ["--repeats", "2", "--output", str(tmp_path), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["conversions.py", *arguments])
    conversions.main()
    (path,) = tmp_path.glob("*.json")
    result = json.loads(path.read_text())
    (record,) = result["records"]
    assert (record["layers"], record["kernels"], record["changed"]) == (2, 2, 2)
    assert record["folded_difference"] <= 1e-5
    assert record["loaded_difference"] <= 1e-5
    assert len(record["seconds"]) == 2
    table = (tmp_path / "conversions.md").read_text(encoding="utf-8")
    assert f"keras {keras.__version__}" in table
    assert "| small" in table

    (tmp_path / "conversions.md").unlink()
    monkeypatch.setattr(
        sys, "argv", ["conversions.py", "--only-table", str(path), "--output", str(tmp_path)]
    )
    conversions.main()
    assert (tmp_path / "conversions.md").read_text(encoding="utf-8") == table
