"""One run of the comparison after the other, in a process of its own on one core."""

import dataclasses
import functools
import math
import multiprocessing
import os
import pathlib
import statistics
import threading
import time

from benchmarks.comparison import examples, families, naming, search, tuning

# Fewer looks at the loss take less time, and change no number. With PyTorch, Keras looks at
# each step.
STEPS_PER_EXECUTION = 25
CACHE = pathlib.Path("~/.cache/keras_wcond/compiled").expanduser()


def start(core):
    """Takes one core for itself, and keeps what JAX compiles for later processes."""
    if parent := multiprocessing.parent_process():
        # A process whose parent was stopped would wait for work for ever.
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    os.environ.update(
        OMP_NUM_THREADS="1",
        TF_NUM_INTRAOP_THREADS="1",
        TF_NUM_INTEROP_THREADS="1",
        TF_CPP_MIN_LOG_LEVEL="3",
    )
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


@functools.cache
def data_of(family):
    """The family's data, the same for all its runs."""
    chosen = families.FAMILIES[family]
    return chosen.module.load_data(chosen.options())


class Model:
    """Models of one cell, of which those that compile to the same share what was compiled.

    Args:
        family: Name of the family.
        normalization: Name of the normalization.
        optimizer: Name of the optimizer.
    """

    def __init__(self, family, normalization, optimizer):
        self.family, self.normalization = families.FAMILIES[family], normalization
        self.optimizer, self.data = optimizer, data_of(family)
        self.kept = {}
        # The record of the best run of the search so far.
        self.best = None

    def new(self, run):
        """A model for a run, with its options."""
        import keras

        keras.utils.set_random_seed(run.seed)
        point = run.point
        in_gain = point.mode in ("fixed", "scalar")
        options = self.family.options(
            optimizer=self.optimizer,
            learning_rate=point.rate,
            seed=run.seed,
            initial_scale=1.0 if in_gain else point.scale,
            gain="kernel_norm" if point.mode == "kernel_norm" else "initial_norm",
            trainable_gain="scalar" if point.mode == "scalar" else None,
            steps_per_execution=1 if keras.backend.backend() == "torch" else STEPS_PER_EXECUTION,
            part_of_epoch=run.part,
            penalty=float(point.mode) if point.mode in families.PENALTIES else 1.0,
        )
        if naming.is_matched(self.normalization):
            return self._with_what_was_compiled(self._matched(options, point), None), options
        name = self.normalization.partition(",")[0]
        model = self.family.module.build(name, self.data, options)
        if in_gain:
            # The same as `gain=scale`, which as a number would be compiled into every step.
            set_gains(model, point.scale)
        return self._with_what_was_compiled(model, point.mode), options

    def _matched(self, options, point):
        """The plain model with the kernels that row equilibration starts with at a point."""
        if point.mode in ("fixed", "scalar"):
            options = dataclasses.replace(options, gain=point.scale, trainable_gain=None)
        base = naming.base_of(self.normalization)
        name = naming.with_base(base, "row_equilibration+at_start")
        return self.family.module.build(name, self.data, options)

    def _with_what_was_compiled(self, model, mode):
        """The first model of a kind, with the values of the new one."""
        import keras

        kind = "weight" if mode in ("fixed", "initial_norm") else mode
        variables = [*model.trainable_variables, *model.non_trainable_variables]
        if kind not in self.kept:
            self.kept[kind] = model, variables
            return model
        kept, targets = self.kept[kind]
        for target, variable in zip(targets, variables, strict=True):
            target.assign(variable)
        for variable in kept.optimizer.variables:
            # Not times zero, which a run that diverged would outlast.
            variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
        return kept


def fields_of(model):
    """The functional models that a model consists of."""
    return [model.coarse, model.fine] if hasattr(model, "coarse") else [model]


def set_gains(model, value):
    """Sets the gain of every conditioned kernel."""
    from keras_wcond import conditioned_layers

    for field in fields_of(model):
        for layer in conditioned_layers(field):
            for gain in layer.gain_weights:
                gain.assign(gain * 0 + value)


def condition_numbers(model):
    """The smallest, median and largest condition number, over the numerical rank, as used."""
    import keras_wcond

    found = sorted(
        record["effective_condition_number"]
        for field in fields_of(model)
        for record in keras_wcond.conditioning_report(field, methods=()).records
    )
    return [rounded(number) for number in (found[0], statistics.median(found), found[-1])]


def largest_eigenvalue(model, family, data, options):
    """Of the Hessian of the loss on validation samples, to some per cent."""
    import keras_wcond

    count = family.curvature_samples
    if hasattr(data, "classes"):
        inputs, targets = images_of(data, count, options)
    else:
        inputs, targets = (array[:count] for array in data.validation)
    curvature = keras_wcond.loss_curvature(model, inputs, targets, iterations=30, tolerance=0.02)
    return rounded(curvature.largest_eigenvalue)


def images_of(data, count, options):
    """So many validation images, normalized, and their labels."""
    image_batches = examples.module("common.image_batches")
    return image_batches.Batches(data.validation, data, count, options)[0]


def stop_if_hopeless(name, best):
    """A callback that stops a run that `search.is_hopeless()`.

    Args:
        name: Name of the validation score.
        best: The record of the best run before, or None.
    """
    import keras

    class StopIfHopeless(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.scores, self.has_stopped = [], False

        def on_epoch_end(self, epoch, logs=None):
            self.scores.append(rounded(logs[name]))
            known = best["scores"] if best else None
            if search.is_hopeless(self.scores, known, self.params["epochs"]):
                self.model.stop_training = self.has_stopped = True

    return StopIfHopeless()


@functools.lru_cache(maxsize=1)
def cells(family, optimizer):
    """The cells of one setting, as far as there are any; those of the last one are let go."""
    return {}


def cell(family, normalization, optimizer):
    """The models of a cell, with what was compiled for them."""
    found = cells(family, optimizer)
    if normalization not in found:
        found[normalization] = Model(family, normalization, optimizer)
    return found[normalization]


def perform(run):
    """Trains and scores one run; its record, also where it diverged or failed."""
    began = time.perf_counter()
    record = {
        "family": run.family,
        "normalization": run.normalization,
        "optimizer": run.optimizer,
        "phase": run.phase,
        "index": run.index,
        "seed": run.seed,
        "rate": run.point.rate,
        "scale": run.point.scale,
        "mode": run.point.mode,
        **({"part": run.part} if run.phase == "seconds" else {}),
    }
    try:
        record |= _trained(run)
    except Exception as error:
        record |= {"status": "failed", "error": f"{type(error).__name__}: {error}"[:300]}
        # What was compiled may hold arrays that are gone.
        cells.cache_clear()
    record["seconds"] = round(time.perf_counter() - began, 2)
    return record


def rounded(number):
    """Five digits, or None for what is no number."""
    return float(f"{number:.5g}") if math.isfinite(number) else None


def _trained(run):
    family = families.FAMILIES[run.family]
    own = cell(run.family, run.normalization, run.optimizer)
    model, options = own.new(run)
    data = data_of(run.family)
    is_search = run.phase == "tune"
    stop = stop_if_hopeless(family.score, own.best)
    callbacks = [stop] if is_search else []
    if run.phase == "half":
        import keras_wcond

        callbacks = [keras_wcond.FoldConditioning(after=options.epochs // 2)]
        # The model will be another one.
        del cells(run.family, run.optimizer)[run.normalization]
    history = family.module.train(model, data, options, callbacks)
    losses, scores = history["loss"], history.get(family.score, [])
    finished = len(losses) == options.epochs and all(map(math.isfinite, (*losses, *scores)))
    record = {
        "status": "finished" if finished else "stopped" if stop.has_stopped else "diverged",
        "losses": [rounded(loss) for loss in losses],
        "scores": [rounded(score) for score in scores],
        "score": rounded(scores[-1]) if finished else None,
    }
    if is_search and finished:
        own.best = tuning.best([record, *([own.best] if own.best else [])])
    if run.phase not in ("tune", "refine") and finished:
        record["test"] = rounded(family.module.evaluate(model, data, options)[family.test_score])
        record["condition_numbers"] = condition_numbers(model)
        # Of one seed, since it takes longer to compile than a run.
        if run.phase == "test" and run.seed == tuning.TEST_SEEDS[0] and family.curvature_samples:
            record["largest_eigenvalue"] = largest_eigenvalue(model, family, data, options)
    return record
