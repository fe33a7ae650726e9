"""The command line `python -m keras_wcond`: its arguments, messages and exit status."""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from keras_wcond import conditioners
from keras_wcond.gains import GAIN_WORDS, standardize_gain
from keras_wcond.models import commands

_PROGRAM = "python -m keras_wcond"
_EPILOG = (
    "The exit status is 0, 1 after a failure, or 2 for wrong arguments. The environment variable "
    "KERAS_BACKEND chooses the backend."
)
# Errors with a message for users. The class of any other error is part of its message.
_EXPLAINED = (ValueError, TypeError, OSError, ImportError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: List of strings, or None for those of the process. Defaults to None.

    Returns:
        The exit status, 0 or 1. Wrong arguments end the process with exit status 2.
    """
    parsed = _parser().parse_args(arguments)
    try:
        parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe. Python would flush it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        print(f"{_PROGRAM} {parsed.command}: error: {_in_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _in_one_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, _EXPLAINED) and text else f"{type(error).__name__}: {text}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description="Weight conditioning of saved Keras models.", epilog=_EPILOG
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_report(subparsers)
    _add_convert(subparsers)
    _add_fold(subparsers)
    return parser


def _add_report(subparsers: Any) -> None:
    report = _added(
        subparsers,
        commands.report,
        "print the condition of each kernel of a model",
        "Prints the condition number, rank and norms of every kernel of a model, the predicted "
        "effect of each method, and advice.",
    )
    form = report.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    form.add_argument("--json", action="store_true", help="print JSON, and nothing else")
    report.add_argument(
        "--plot", metavar="FILE", help="draw the spectra into FILE, such as spectra.png"
    )


def _add_convert(subparsers: Any) -> None:
    convert = _added(
        subparsers,
        commands.convert,
        "condition the kernels of a model",
        "Saves a copy of a model in which kernels are conditioned. Prints the conditioned layers "
        "and the skipped layers, with reasons.",
    )
    _add_output(convert)
    convert.add_argument(
        "--conditioner",
        metavar="NAME",
        type=_conditioner,
        required=True,
        help=f"the method, one of {', '.join(conditioners.METHODS)}",
    )
    convert.add_argument(
        "--gain",
        type=_gain,
        default="initial_norm",
        help=f"a positive number, or one of {', '.join(GAIN_WORDS)} (default: %(default)s)",
    )
    convert.add_argument(
        "--trainable-gain",
        choices=("scalar", "per_unit"),
        help="a trainable gain for each kernel, or for each output unit (default: none)",
    )
    convert.add_argument(
        "--layers",
        metavar="PATTERN",
        action="append",
        help="condition the layers with these names or paths only, such as 'encoder/*'. May be "
        "given several times",
    )


def _add_fold(subparsers: Any) -> None:
    fold = _added(
        subparsers,
        commands.fold,
        "make a plain Keras model with the same outputs",
        "Saves the plain Keras model with the same outputs as a conditioned model.",
    )
    _add_output(fold)


def _added(subparsers: Any, run: Any, summary: str, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        run.__name__, help=summary, description=description, epilog=_EPILOG
    )
    parser.set_defaults(run=run)
    parser.add_argument("model", metavar="MODEL", type=pathlib.Path, help="a saved .keras file")
    parser.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="import a module that registers classes and functions of the model. May be given "
        "several times. No code is run from the file of a model",
    )
    return parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "output", metavar="OUTPUT", type=_keras_path, help="the .keras file to save"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it exists")


def _keras_path(name: str) -> pathlib.Path:
    path = pathlib.Path(name)
    if path.suffix != ".keras":
        raise argparse.ArgumentTypeError(
            f"Expected a name that ends in `.keras`. Received: {name!r}"
        )
    return path


def _conditioner(name: str) -> Any:
    try:
        return conditioners.get(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _gain(text: str) -> Any:
    try:
        return standardize_gain(text if text in GAIN_WORDS else float(text))
    except ValueError as error:
        expected = f"Expected a positive number or one of {', '.join(GAIN_WORDS)}."
        raise argparse.ArgumentTypeError(f"{expected} Received: {text!r}") from error


if __name__ == "__main__":
    sys.exit(main())
