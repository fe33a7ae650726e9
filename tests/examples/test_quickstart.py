"""The quickstart runs as a user runs it, for a few steps."""

import pathlib
import subprocess
import sys

import keras

QUICKSTART = pathlib.Path(__file__).parents[2] / "examples" / "quickstart.py"
SMALL = ("--epochs", 1, "--depth", 2)


def run(*arguments):
    command = [sys.executable, str(QUICKSTART), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_quickstart_trains_and_reports(tmp_path):
    # `--backends` runs the same in a process for each.
    backends = ("--backends", keras.backend.backend())
    output = run(*SMALL, "--repeats", 2, "--output", tmp_path, *backends)
    for expected in (
        "plain",
        "orthogonal start",
        "row equilibration",
        "stored Newton steps",
        "orthogonal start and updates",
        f"network, {keras.backend.backend()}",
        "training loss",
        "ms, 1.0×",
        "→",
        "condition_optimizer(",
    ):
        assert expected in output
    table = (tmp_path / "quickstart.md").read_text(encoding="utf-8")
    assert f"keras {keras.__version__}" in table
    assert "--epochs 1 --repeats 2" in table
    assert (tmp_path / "quickstart.png").read_bytes().startswith(b"\x89PNG")


def test_quickstart_explains_itself():
    text = run("--help")
    for expected in ("orthogonal start", "--backends", "--output", "--tune", "KERAS_BACKEND"):
        assert expected in text
