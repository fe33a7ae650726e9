"""The commands that write a page each, run on something small."""

import json
import pathlib
import sys

import keras
import numpy as np

from benchmarks.pages import conversions, curvature, methods, methods_report

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def small_model():
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.DepthwiseConv2D(3, activation="tanh")(x)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def test_conversions_measures_and_reports(tmp_path, monkeypatch):
    monkeypatch.setattr(conversions, "MODELS", {"small": small_model})
    arguments = ["--repeats", "2", "--output", str(tmp_path), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["conversions", *arguments])
    conversions.main()
    (path,) = tmp_path.glob("*.json")
    result = json.loads(path.read_text())
    (record,) = result["records"]
    assert (record["layers"], record["kernels"], record["changed"]) == (1, 1, 1)
    assert record["folded_difference"] <= 1e-5
    assert record["loaded_difference"] <= 1e-5
    assert len(record["seconds"]) == 2
    table = (tmp_path / "conversions.md").read_text(encoding="utf-8")
    assert f"keras {keras.__version__}" in table
    assert "| small" in table

    (tmp_path / "conversions.md").unlink()
    monkeypatch.setattr(
        sys, "argv", ["conversions", "--only-table", str(path), "--output", str(tmp_path)]
    )
    conversions.main()
    assert (tmp_path / "conversions.md").read_text(encoding="utf-8") == table


def test_curvature_measures_and_reports(tmp_path, monkeypatch):
    arguments = ["--epochs", "1", "--repeats", "1", "--width", "6", "--depth", "1"]
    arguments += ["--iterations", "3", "--rates", "0.1"]
    arguments += ["--output", str(tmp_path), "--results", str(tmp_path)]
    monkeypatch.setattr(curvature, "NETWORKS", {"Newton": curvature.NETWORKS["Newton"]})
    data = np.ones((64, 64), "float32"), np.zeros(64)
    monkeypatch.setattr(curvature, "load_digits", lambda: (data, data))
    monkeypatch.setattr(sys, "argv", ["curvature", *arguments])
    curvature.main()
    result = json.loads((tmp_path / "curvature.json").read_text())
    (record,) = result["records"]
    assert (record["network"], record["rate"]) == ("Newton", 0.1)
    (run,) = record["runs"]
    assert list(run["curvatures"]) == ["0", "1"]
    assert all(found["largest"] > 0.0 for found in run["curvatures"].values())
    assert len(run["losses"]) == 1
    table = (tmp_path / "curvature.md").read_text(encoding="utf-8")
    assert f"keras {keras.__version__}" in table
    assert "--rates 0.1`" in table
    assert "(edge)" in table
    assert (tmp_path / "curvature.png").read_bytes().startswith(b"\x89PNG")


def test_each_method_has_a_line_in_the_picture_of_spectra():
    left_out = {"frobenius_normalization", "spectral_normalization"}
    assert set(methods_report.LOOKS) == {"raw", *methods.METHODS} - left_out


def test_methods_fill_the_blocks_of_documents(tmp_path, monkeypatch):
    chosen = {name: methods.METHODS[name] for name in ("row_equilibration", "ruiz_equilibration")}
    for name, value in {
        "SIZE": 8,
        "DECAYS": (0.0, 0.1, 0.2),
        "METHODS": chosen,
        "ACTIVATIONS": ("relu", "tanh"),
        "CASES": {"a layer": ((4, 4), (2, 4))},
        "trained_kernel": lambda: np.eye(8),
        "load_digits": lambda: (np.ones((64, 64)), np.zeros(64)),
    }.items():
        monkeypatch.setattr(methods, name, value)
    original = (DOCS / "explanation" / "methods.md").read_text(encoding="utf-8")
    pages = [tmp_path / "methods.md", tmp_path / "gains.md"]
    pages[0].write_text(original, encoding="utf-8")
    pages[1].write_text((DOCS / "how-to" / "choose-a-gain.md").read_text(encoding="utf-8"))
    arguments = ["--rounds", "2", "--epochs", "1", "--documents", *map(str, pages)]
    arguments += ["--output", str(tmp_path / "results"), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["methods", *arguments])
    methods.main()
    text = pages[0].read_text(encoding="utf-8")
    assert f"keras {keras.__version__}" in text
    assert "1.414" in pages[1].read_text(encoding="utf-8")
    assert "| a layer" in text
    assert "| nearly rank-deficient" in text
    for picture in ("spectra.png", "row-norms.png"):
        assert (tmp_path / "results" / picture).read_bytes().startswith(b"\x89PNG")
    # What is between the blocks stays.
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        line for line in original.splitlines() if line.startswith("## ")
    ]
