"""What `condition_model` prints of a conversion."""

import re

import keras
import numpy as np
import pytest

import keras_wcond
from keras_wcond import condition_model
from tests.helpers import normal, to_numpy
from tests.models.small_models import moved, small

layers = keras.layers
IMAGES = normal(4, 8, 8, 2)


def test_report_says_what_was_conditioned_what_was_left_and_why(capsys):
    model = small()
    condition_model(model, verbose=True)
    printed = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line for line in printed.splitlines() if "│" in line}
    assert "makes an output" in rows["logits"]
    assert "makes an output" in rows["value"]
    assert rows["attention"].split("│")[3:5] == [" 4       ", " 4           "]
    assert "features/stem" in rows
    assert "features/norm" not in rows
    assert [cell.strip() for cell in rows["depthwise"].split("│")[3:6]] == ["1", "-", "depthwise"]
    assert "Conditioned: 12 kernels of 5 layers. Without a kernel: 6 layers." in printed
    condition_model(model)
    assert capsys.readouterr().out == ""


def test_report_has_the_width_of_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    condition_model(small(), verbose=True)
    table = [line for line in capsys.readouterr().out.splitlines() if line[:1] in "┏┡│└"]
    assert max(map(len, table)) <= 60
    # Long names are folded, not cut.
    assert "…" not in "".join(table).replace("weights=…", "")
    classes = "".join(line.split("│")[2].strip() for line in table if line.startswith("│"))
    assert "MultiHeadAttention" in classes


@pytest.mark.parametrize("method", ["row_equilibration", "newton_orthogonalization"])
def test_change_of_the_outputs_is_reported(method, capsys):
    model = moved(small())
    conditioned = condition_model(model, method, check_on=IMAGES)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("Fine-tune the model to recover. ")
    for line, before, after in zip(lines, model(IMAGES), conditioned(IMAGES), strict=False):
        before, after = to_numpy(before), to_numpy(after)
        change = np.linalg.norm(after - before) / np.linalg.norm(before)
        name, _, rest = line.removeprefix("Output change of ").partition(": ")
        number = float(rest.removeprefix("‖new - old‖ / ‖old‖ = ").rstrip(".").partition(",")[0])
        assert number == pytest.approx(change, rel=0.06)
        if before.shape[-1] > 1:
            moved_rows = np.mean(before.argmax(-1) != after.argmax(-1))
            assert f"the argmax differs in {moved_rows:.1%} of samples." in rest
        assert name in {"'softmax'", "'value'"} or name.startswith("'softmax_")


def test_outputs_that_are_kept_are_reported_without_advice(capsys):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, "tanh"), layers.Dense(3)])
    condition_model(model, trainable_gain="per_unit", check_on=normal(8, 6))
    (line,) = capsys.readouterr().out.splitlines()
    text = (
        r"Output change: ‖new - old‖ / ‖old‖ = (\S+), and the argmax differs in 0\.0% of samples\."
    )
    assert float(re.fullmatch(text, line)[1]) < 1e-6


def test_outputs_that_are_not_finite_are_counted(capsys):
    inputs = keras.Input((6,))
    outputs = [layers.Dense(3)(layers.Dense(5)(inputs)) for _ in range(2)]
    model = keras.Model(inputs, outputs)
    model.layers[1].kernel.assign(np.full((6, 5), np.nan))
    x = normal(8, 6)
    condition_model(model, check_on=x)
    first, second, advice = capsys.readouterr().out.splitlines()
    assert first.endswith("not finite in 8 of 8 samples.")
    assert "‖new - old‖" in second
    assert advice.startswith("Fine-tune")
    x[:2] = np.inf
    condition_model(model, trainable_gain="per_unit", check_on=x)
    assert "0.0% of samples; not finite in 2 of 8 samples." in capsys.readouterr().out


def test_change_of_outputs_is_measured_without_updates():
    """Of a stateful layer, whose state is carried over."""
    inputs = keras.Input(batch_shape=(2, 3, 4))
    model = keras.Model(inputs, layers.Dense(2)(layers.LSTM(4, stateful=True, name="lstm")(inputs)))
    x = normal(2, 3, 4)
    model(x)
    states = [to_numpy(state).copy() for state in model.get_layer("lstm").states]
    conditioned = condition_model(model, trainable_gain="per_unit", check_on=x)
    for state, before in zip(model.get_layer("lstm").states, states, strict=True):
        np.testing.assert_array_equal(to_numpy(state), before)
    np.testing.assert_allclose(to_numpy(conditioned(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-6)
    folded = keras_wcond.fold_model(conditioned)
    np.testing.assert_allclose(to_numpy(folded(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-6)


def test_report_names_layers_whose_kernels_are_not_known(capsys):

    class Mixing(layers.Layer):
        def build(self, input_shape):
            self.mixing = self.add_weight(name="mixing", shape=(input_shape[-1], 3))

        def call(self, inputs):
            return keras.ops.matmul(inputs, self.mixing)

    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a[1]"), Mixing(name="own"), layers.Dense(2)]
    )
    model.layers[2].quantize("int8")
    condition_model(model, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    (own,) = (line for line in lines if "own" in line and "│" in line)
    assert "unknown: see Conditioned(weights=…)" in own
    assert any("a[1]" in line for line in lines)
    assert any("quantized" in line for line in lines)
