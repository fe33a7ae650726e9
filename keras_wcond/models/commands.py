"""The commands of `python -m keras_wcond`.

Results are printed on stdout, and notes, progress and warnings on stderr.
"""

import argparse
import contextlib
import sys
import textwrap

import keras

from keras_wcond.arguments import counted
from keras_wcond.diagnostics.plots import pyplot
from keras_wcond.diagnostics.progress import progress
from keras_wcond.diagnostics.report import conditioning_report
from keras_wcond.diagnostics.tables import terminal_width
from keras_wcond.layers.base.survey import conditioned_layers
from keras_wcond.models import condition_model, fold_model
from keras_wcond.models.exchange import graph_layers
from keras_wcond.models.files import (
    import_modules,
    is_compiled,
    read_model,
    require_free,
    write_model,
)


def report(arguments: argparse.Namespace) -> None:
    """Prints the report on a saved model, and draws its spectra."""
    if arguments.plot is not None:
        pyplot()  # If Matplotlib is missing, the error comes before the work.
    model = _read(arguments)
    found = conditioning_report(model)
    if arguments.json:
        print(found.to_json())
    else:
        print(found.to_markdown() if arguments.markdown else found)
    if arguments.plot is not None:
        found.plot(arguments.plot)


def convert(arguments: argparse.Namespace) -> None:
    """Saves a copy of a model in which kernels are conditioned."""
    require_free(arguments.output, arguments.overwrite)
    conditioned = condition_model(
        _read(arguments),
        arguments.conditioner,
        gain=arguments.gain,
        trainable_gain=arguments.trainable_gain,
        layers=arguments.layers,
        verbose=True,
    )
    _write(conditioned, arguments)
    if not _keeps_function(arguments):
        _note("The converted model computes another function. Train or fine-tune it.")


def fold(arguments: argparse.Namespace) -> None:
    """Saves the plain Keras model with the same outputs."""
    require_free(arguments.output, arguments.overwrite)
    model = _read(arguments)
    folded = fold_model(model)
    names = [layer.name for layer, _ in graph_layers(model) if conditioned_layers(layer)]
    text = f"Folded: {counted(len(names), 'layer')}{': ' if names else ''}{', '.join(names)}."
    print(textwrap.fill(text, terminal_width(), subsequent_indent="  "))
    _write(folded, arguments)


def _read(arguments: argparse.Namespace) -> keras.Model:
    # What modules and layers print is not the command's result.
    with contextlib.redirect_stdout(sys.stderr), progress("Loading", None):
        import_modules(arguments.modules)
        return read_model(arguments.model)


def _write(model: keras.Model, arguments: argparse.Namespace) -> None:
    has_training_state = is_compiled(arguments.model)
    with progress("Saving", None):
        write_model(model, arguments.output)
    print(f"Saved: {arguments.output}")
    if has_training_state:
        _note(
            f"{arguments.model} is compiled. Its optimizer with the state, its loss and its "
            f"metrics are not carried over. Compile {arguments.output} before training."
        )


def _keeps_function(arguments: argparse.Namespace) -> bool:
    """Whether the gains, as they start, undo all that the method changes."""
    undone = {"scale", "row norms"} if arguments.trainable_gain == "per_unit" else {"scale"}
    return arguments.gain == "initial_norm" and arguments.conditioner.changes in undone


def _note(text: str) -> None:
    print(f"Note: {text}", file=sys.stderr)
