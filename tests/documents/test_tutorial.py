"""The tutorial, whose blocks continue one another."""

import pathlib
import re

import keras
import pytest

from keras_wcond import ConditionedDense

TUTORIAL = pathlib.Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCKS = re.findall(
    r"^```py\n(.*?)^```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


def test_tutorial(tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason="not installed: scikit-learn")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS:
        if ".export(" not in block:  # `tests/models/test_export.py` has the conditions for these.
            exec(block, names)
    assert isinstance(names["model"].layers[0], ConditionedDense)
    assert type(names["plain"].layers[0]) is keras.layers.Dense
    assert abs(names["difference"]).max() < 1e-4
    assert keras.models.load_model(tmp_path / "plain.keras").count_params() > 0
