"""The commands of `python -m keras_wcond`, on saved models."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from keras_wcond import condition_model, conditioned_layers, conditioning_report
from keras_wcond.__main__ import main
from tests.helpers import normal, to_numpy

INPUTS = normal(5, 6)
MODULE = """
import keras

print("imported")

@keras.saving.register_keras_serializable("command_line")
class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2.0 * inputs
"""


def network():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, "tanh", name="first"),
            keras.layers.Dense(7, "tanh", name="second"),
            keras.layers.Dense(3, name="last"),
        ]
    )


@pytest.fixture
def saved(tmp_path):
    """Saves a model, and returns the path of its file as a string."""

    def save(model, name="model.keras"):
        path = tmp_path / name
        model.save(path)
        return str(path)

    return save


@pytest.fixture
def own_layer(tmp_path, monkeypatch):
    """The name of a module that registers a layer, which is not imported, and a model with it."""
    (tmp_path / "own_layers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    doubled = importlib.import_module("own_layers").Doubled()
    path = tmp_path / "own.keras"
    keras.Sequential([keras.Input((6,)), doubled, keras.layers.Dense(3)]).save(path)

    def forget():
        sys.modules.pop("own_layers", None)
        keras.saving.get_custom_objects().pop("command_line>Doubled", None)

    forget()
    yield str(path)
    forget()


def failure(capsys, *arguments):
    """The one line that a failing command prints."""
    capsys.readouterr()
    assert main([*arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    prefix = f"python -m keras_wcond {arguments[0]}: error: "
    assert line.startswith(prefix)
    return line.removeprefix(prefix)


def usage_error(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "form"),
    [([], str), (["--markdown"], lambda r: r.to_markdown()), (["--json"], lambda r: r.to_json())],
    ids=["text", "Markdown", "JSON"],
)
def test_report_is_that_of_the_model(options, form, saved, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "72")
    model = condition_model(network())
    assert main(["report", saved(model), *options]) == 0
    printed = capsys.readouterr()
    assert printed.out == form(conditioning_report(model)) + "\n"
    assert printed.err == ""


def test_report_draws_spectra(saved, capsys, tmp_path):
    picture = tmp_path / "spectra.png"
    assert main(["report", saved(network()), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "first/kernel" in capsys.readouterr().out


def test_plot_without_matplotlib_fails_before_the_work(saved, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = failure(capsys, "report", saved(network()), "--plot", "spectra.png")
    assert message.startswith("Expected Matplotlib to be installed")


def test_only_the_report_is_on_stdout(own_layer, capsys):
    assert main(["report", own_layer, "--json", "--import", "own_layers"]) == 0
    printed = capsys.readouterr()
    (record,) = json.loads(printed.out)
    assert record["rows"] == 3
    assert printed.err == "imported\n"


def test_convert_conditions_a_saved_model(saved, capsys, tmp_path):
    model, output = network(), tmp_path / "conditioned.keras"
    options = ["--conditioner", "newton_orthogonalization", "--gain", "0.5"]
    options += ["--trainable-gain", "scalar"]
    assert main(["convert", saved(model), str(output), *options]) == 0
    printed = capsys.readouterr()
    rows = {line.split("│")[1].strip(): line for line in printed.out.splitlines() if "│" in line}
    assert rows["first"].split("│")[4].strip() == "1"
    assert "makes an output" in rows["last"]
    assert f"Saved: {output}" in printed.out.splitlines()
    assert printed.err.startswith("Note: The converted model computes another function.")
    converted = keras.saving.load_model(output)
    expected = condition_model(model, "newton_orthogonalization", 0.5, "scalar")
    assert [layer.name for layer in conditioned_layers(converted)] == ["first", "second"]
    np.testing.assert_allclose(
        to_numpy(converted(INPUTS)), to_numpy(expected(INPUTS)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("method", "options"),
    [("row_equilibration", ["--trainable-gain", "per_unit"]), ("frobenius_normalization", [])],
)
def test_conversions_that_keep_the_function_have_no_note(method, options, saved, capsys, tmp_path):
    model, output = network(), tmp_path / "conditioned.keras"
    assert main(["convert", saved(model), str(output), "--conditioner", method, *options]) == 0
    assert capsys.readouterr().err == ""
    converted = keras.saving.load_model(output)
    np.testing.assert_allclose(
        to_numpy(converted(INPUTS)), to_numpy(model(INPUTS)), rtol=1e-4, atol=1e-5
    )


def test_convert_conditions_chosen_layers(saved, capsys, tmp_path):
    output = tmp_path / "conditioned.keras"
    options = ["--conditioner", "row_equilibration", "--layers", "se*", "--layers", "last"]
    assert main(["convert", saved(network()), str(output), *options]) == 0
    converted = keras.saving.load_model(output)
    assert [layer.name for layer in conditioned_layers(converted)] == ["second", "last"]
    options[-1] = "missing"
    message = failure(capsys, "convert", saved(network()), str(tmp_path / "b.keras"), *options)
    assert "layers='missing', which matches none of ['first', 'last', 'second']" in message


def test_fold_makes_a_plain_model_with_the_same_outputs(saved, capsys, tmp_path):
    model, output = condition_model(network(), "newton_orthogonalization"), tmp_path / "plain.keras"
    assert main(["fold", saved(model), str(output)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["Folded: 2 layers: first, second.", f"Saved: {output}"]
    assert printed.err == ""
    plain = keras.saving.load_model(output)
    assert {type(layer) for layer in plain.layers} == {keras.layers.Dense}
    np.testing.assert_allclose(
        to_numpy(plain(INPUTS)), to_numpy(model(INPUTS)), rtol=1e-4, atol=1e-5
    )
    # Folding a plain model copies it.
    assert main(["fold", str(output), str(output), "--overwrite"]) == 0
    assert "Folded: 0 layers." in capsys.readouterr().out


def test_fold_lists_layers_without_those_inside(saved, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    inputs = keras.Input((4, 6))
    outputs = keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    inner = keras.Sequential([keras.layers.Dense(5, name="a_layer_of_an_inner_model")])
    model = keras.Model(inputs, keras.layers.Dense(3, name="last")(inner(outputs)))
    assert main(["fold", saved(condition_model(model)), str(tmp_path / "plain.keras")]) == 0
    lines = capsys.readouterr().out.splitlines()[:2]
    assert lines == ["Folded: 2 layers: attention,", "  a_layer_of_an_inner_model."]


@pytest.mark.parametrize("command", ["convert", "fold"])
def test_optimizer_state_that_is_not_carried_over_is_reported(command, saved, capsys, tmp_path):
    def squared_error(y, outputs):  # Without which the model can be loaded.
        return keras.ops.mean((y - outputs) ** 2)

    model = condition_model(network(), layers="first") if command == "fold" else network()
    model.compile("adam", squared_error)
    model.fit(INPUTS, normal(5, 3), verbose=0)
    output = tmp_path / "new.keras"
    options = ["--conditioner", "frobenius_normalization"] if command == "convert" else []
    assert main([command, saved(model), str(output), *options]) == 0
    (note,) = capsys.readouterr().err.splitlines()
    assert "model.keras is compiled. Its optimizer with the state, its loss" in note
    assert note.endswith(f"Compile {output} before training.")
    assert not keras.saving.load_model(output).compiled


@pytest.mark.parametrize("command", ["convert", "fold"])
def test_existing_file_is_replaced_only_when_asked_for(
    command, saved, capsys, tmp_path, monkeypatch
):
    path, output = saved(condition_model(network(), layers="first")), tmp_path / "new.keras"
    output.write_text("kept")
    arguments = [command, path, str(output)]
    arguments += ["--conditioner", "row_equilibration"] if command == "convert" else []
    message = failure(capsys, *arguments)
    assert message.startswith("Expected the output not to exist yet.")
    assert "pass `--overwrite`" in message
    with monkeypatch.context() as patch:

        def without_space(*arguments, **options):
            raise OSError("No space left on device")

        patch.setattr(keras.Model, "save", without_space)
        assert main([*arguments, "--overwrite"]) == 1
        assert "error: No space left on device" in capsys.readouterr().err
    assert output.read_text() == "kept"
    assert main([*arguments, "--overwrite"]) == 0
    assert keras.saving.load_model(output).count_params() >= network().count_params()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.keras", "new.keras"]


def test_folder_of_the_output_must_exist(saved, capsys, tmp_path):
    output = tmp_path / "missing" / "new.keras"
    message = failure(capsys, "fold", saved(network()), str(output))
    assert f"Create {output.parent} first." in message


def write_text(path):
    path.write_text("no model")


def write_other_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no model")


def write_truncated(path):
    network().save(path)
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "write", [write_text, write_other_archive, write_truncated, pathlib.Path.mkdir]
)
def test_other_files_are_refused(write, capsys, tmp_path):
    path = tmp_path / "model.keras"
    write(path)
    message = failure(capsys, "report", str(path))
    assert message.startswith("Expected a model that is saved as a `.keras` file. Received: ")
    assert message.endswith("Save the whole model by `model.save('model.keras')`.")


def test_missing_and_misnamed_files_are_refused(saved, capsys, tmp_path):
    message = failure(capsys, "report", str(tmp_path / "model.keras"))
    assert message.endswith("model.keras, which does not exist.")
    renamed = pathlib.Path(saved(network())).rename(tmp_path / "model.zip")
    assert "model.zip, which is not one" in failure(capsys, "report", str(renamed))


def test_broken_model_is_refused_with_the_reason(capsys, tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{")
    message = failure(capsys, "report", str(path))
    assert "for which Keras says: Expecting property name" in message


def test_unknown_layers_are_found_in_imported_modules(own_layer, capsys, tmp_path):
    message = failure(capsys, "report", own_layer)
    assert "with class 'Doubled'. Pass the module that registers it" in message
    assert "`--import my_layers`" in message
    output = tmp_path / "new.keras"
    options = ["--conditioner", "row_equilibration", "--layers", "*", "--import", "own_layers"]
    assert main(["convert", own_layer, str(output), *options]) == 0


def test_unknown_functions_are_named(saved, capsys):
    @keras.saving.register_keras_serializable("command_line")
    def quadrupled(x):
        return 4.0 * x

    path = saved(keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, quadrupled)]))
    keras.saving.get_custom_objects().pop("command_line>quadrupled")
    assert "with function 'command_line>quadrupled'" in failure(capsys, "report", path)


def test_modules_that_cannot_be_imported_are_named(saved, capsys, tmp_path, monkeypatch):
    path = saved(network())
    message = failure(capsys, "report", path, "--import", "no_such_module")
    assert "--import no_such_module, with ModuleNotFoundError: No module" in message
    (tmp_path / "broken_module.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    message = failure(capsys, "report", path, "--import", "broken_module")
    assert "with ZeroDivisionError: division by zero. Run the command" in message


def test_no_code_of_a_file_is_run(saved, capsys):
    layers = [keras.layers.Lambda(lambda x: x), keras.layers.Dense(3)]
    path = saved(keras.Sequential([keras.Input((6,)), *layers]))
    message = failure(capsys, "report", path)
    assert message.startswith("Expected a model without code in its file.")
    assert "a lambda or another object" in message


def test_errors_of_the_conversion_take_one_line(saved, capsys, tmp_path):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    arguments = ["convert", saved(model), str(tmp_path / "new.keras")]
    message = failure(capsys, *arguments, "--conditioner", "row_equilibration")
    assert message.startswith("Expected a model with a kernel to condition.")
    assert not (tmp_path / "new.keras").exists()


def test_unexpected_errors_are_named(saved, capsys, monkeypatch):
    def fail(model):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("keras_wcond.models.commands.conditioning_report", fail)
    assert failure(capsys, "report", saved(network())) == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"the following arguments are required: COMMAND"),
        (["report", "a.keras", "--json", "--markdown"], "not allowed with argument"),
        (["convert", "a.keras", "b.keras"], "arguments are required: --conditioner"),
        (["convert", "a.keras", "b.keras", "--conditioner", "row"], "'newton_orthogonalization'"),
        (["convert", "a.keras", "b.keras", "--conditioner", "row"], "mean 'row_equilibration'?"),
        (["fold", "a.keras", "b.h5"], "Expected a name that ends in `.keras`. Received: 'b.h5'"),
    ],
)
def test_wrong_arguments_are_usage_errors(arguments, message, capsys):
    assert message in usage_error(capsys, *arguments)


@pytest.mark.parametrize("gain", ["0", "-1", "nan", "large"])
def test_gains_are_positive_numbers_or_words(gain, capsys):
    arguments = ["convert", "a.keras", "b.keras", "--conditioner", "row_equilibration"]
    message = usage_error(capsys, *arguments, f"--gain={gain}")
    expected = "Expected a positive number or one of auto, initial_norm, kernel_norm. Received: "
    assert message.endswith(f"argument --gain: {expected}{gain!r}")


def test_closed_pipes_end_the_command_quietly(saved, capsys, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        assert main(["report", saved(network())]) == 1
    assert capsys.readouterr().err == ""


def test_json_can_be_piped(own_layer):
    command = [sys.executable, "-m", "keras_wcond", "report", pathlib.Path(own_layer).name]
    folder = pathlib.Path(own_layer).parent
    # Modules are found in the folder of the command.
    options = ["--json", "--import", "own_layers"]
    root = str(pathlib.Path(__file__).parents[1])
    run = subprocess.run(
        [*command, *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert [record["layer"] for record in json.loads(run.stdout)] == ["Dense"]
    assert "\x1b" not in run.stderr  # A progress bar needs a terminal.


def test_failures_have_an_exit_status_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "keras_wcond", "fold", "missing.keras", "new.keras"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith("python -m keras_wcond fold: error: Expected")
