"""The command line of the examples: a run for each normalization, the table and the picture.

Each example is a module with the same five functions and its recipes:

  load_data(options)                             the data of all models
  build(normalization, data, options)            a new model, not compiled
  train(model, data, options, callbacks)         compiles it unless it is compiled, and trains it;
                                                 losses and scores of each epoch
  evaluate(model, data, options, part="test")    its scores
  draw(runs, data, options)                      a picture of all models, as a figure
  RECIPES                                        (description, options) by name
"""

import pathlib
import sys
import time
from typing import Any

import keras
import tabulate
import tqdm
import tyro
from tqdm.keras import TqdmCallback

from common import normalizations
from common.training import Run, TrainingOptions


def progress(description: str):
    """A progress bar over epochs; a line now and then where it cannot be redrawn in place."""
    pace = 0.1 if sys.stderr.isatty() else 10.0
    return TqdmCallback(
        verbose=0,
        tqdm_class=lambda *args, **kwargs: tqdm.tqdm(
            *args, **kwargs, desc=description, mininterval=pace, leave=True
        ),
    )


def main(family: Any, words: list[str] | None = None) -> dict[str, Run]:
    """The command line of an example: trains, prints the table, saves the picture."""
    first = next(iter(family.RECIPES))
    # A recipe's name comes first; without one, the offline default is meant.
    words = sys.argv[1:] if words is None else list(words)
    if words[:1] not in ([name] for name in (*family.RECIPES, "-h", "--help")):
        words = [first, *words]
    options = tyro.extras.overridable_config_cli(
        family.RECIPES, description=family.__doc__, args=words
    )
    try:
        return run(family, options)
    except ValueError as error:
        sys.exit(f"{pathlib.Path(family.__file__).name}: {error}")


def run(family: Any, options: TrainingOptions) -> dict[str, Run]:
    """Trains a model for each normalization, prints the table and saves the picture."""
    keras.config.set_dtype_policy(options.precision)
    if not options.normalizations:
        raise ValueError("Expected at least one of --normalizations. Received: none")
    for name in options.normalizations:
        normalizations.parse(name)
    if options.distribute:
        require_jax()
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    data = family.load_data(options)
    runs = {}
    for name in options.normalizations:
        keras.utils.set_random_seed(options.seed)
        model = family.build(name, data, options)
        began = time.perf_counter()
        history = family.train(model, data, options, [progress(name)])
        seconds = time.perf_counter() - began
        runs[name] = Run(model, history, family.evaluate(model, data, options), seconds)
    print(table(runs))
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{pathlib.Path(family.__file__).stem}.png"
    family.draw(runs, data, options).savefig(path, dpi=150)
    print(f"Saved {path}")
    return runs


def require_jax() -> None:
    """Raises an error where Keras' distribution API does not work."""
    if keras.backend.backend() != "jax":
        raise ValueError(
            "Expected the backend of Keras' distribution API, jax, to split batches over devices. "
            f"Received: --distribute with the backend {keras.backend.backend()!r}"
        )


def table(runs: dict[str, Run]) -> str:
    """Scores, the last training loss and seconds of each normalization."""
    scores = list(next(iter(runs.values())).scores)
    rows = [
        [
            name,
            *(f"{run.scores[score]:.4g}" for score in scores),
            f"{run.history['loss'][-1]:.4g}",
            f"{run.seconds:.0f}",
        ]
        for name, run in runs.items()
    ]
    headers = ["normalization", *(f"test {score}" for score in scores), "train loss", "seconds"]
    return tabulate.tabulate(rows, headers, tablefmt="rounded_outline", disable_numparse=True)
