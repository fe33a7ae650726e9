"""Recipes, options and error messages of the command line."""

import keras
import pytest

from tests.examples.loading import example
from tests.examples.small_networks import small


def test_command_line_takes_a_recipe_and_changes(tmp_path, monkeypatch):
    command_line, deep = example("common.command_line"), example("deep")
    seen = []
    monkeypatch.setattr(command_line, "run", lambda family, options: seen.append(options))
    command_line.main(deep, ["fashion_mnist", "--epochs", "3", "--gain", "0.5"])
    command_line.main(deep, ["--normalizations", "none"])
    first, second = seen
    assert (first.data, first.epochs, first.gain, first.train_images) == (
        "fashion_mnist", 3, 0.5, 10_000
    )  # fmt: skip
    assert (second.data, second.normalizations) == ("digits", ("none",))


def test_a_bad_setting_ends_with_a_message(capsys):
    with pytest.raises(SystemExit) as raised:
        example("common.command_line").main(
            example("cnn"), ["digits", "--normalizations", "nonsense"]
        )
    assert "cnn.py: Expected a normalization" in str(raised.value)


def test_no_normalization_at_all():
    with pytest.raises(ValueError, match=r"at least one of --normalizations. Received: none"):
        example("common.command_line").run(example("deep"), small("deep", normalizations=()))


@pytest.mark.parametrize(
    ("family", "recipe", "option"),
    [("nerf", "blender", "--scene"), ("nerf", "llff", "--scene"), ("shape", "mesh", "--mesh")],
)
def test_recipes_that_read_files_ask_for_them(family, recipe, option, capsys, monkeypatch):
    command_line = example("common.command_line")
    monkeypatch.setattr(command_line, "run", lambda family, options: None)
    with pytest.raises(SystemExit):
        command_line.main(example(family), [recipe])
    assert option in "".join(capsys.readouterr())


def test_a_bad_name_is_told_before_anything_is_trained(monkeypatch):
    deep = example("deep")
    monkeypatch.setattr(deep, "load_data", None)
    with pytest.raises(ValueError, match="Expected a normalization"):
        example("common.command_line").run(deep, small("deep", normalizations=("none", "rows")))


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX can distribute")
def test_distribution_needs_jax():
    with pytest.raises(ValueError, match=r"distribution API, jax.*Received: --distribute"):
        example("common.command_line").run(example("deep"), small("deep", distribute=True))


def test_help_tells_recipes_and_options(capsys):
    command_line = example("common.command_line")
    for words, expected in (
        (["--help"], ["digits", "imagenet", "KERAS_BACKEND"]),
        (["digits", "--help"], ["--normalizations", "--initial-scale", "--train-images"]),
    ):
        with pytest.raises(SystemExit) as raised:
            command_line.main(example("cnn"), words)
        assert raised.value.code == 0
        printed = capsys.readouterr().out
        assert all(word in printed for word in expected)
