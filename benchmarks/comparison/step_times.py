"""How long a training step takes under each normalization, beside the plain network's.

All models of a family train in one process on one core with one optimizer, an epoch each in turn,
after one epoch that compiles; the seconds of a step are a median over the rounds. Writes
benchmarks/results/comparison/step-times.json, which `report` reads. Times the families that there
are records of, unless told which.
"""

import itertools
import json
import statistics
import time

from benchmarks.comparison import families, naming, search, training_runs, tuning
from benchmarks.shared import arguments, environment, progress


def stopwatch():
    """A callback that notes the seconds of each epoch, its validation left out."""
    import keras

    class Stopwatch(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seconds = []

        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.perf_counter()

        def on_test_begin(self, logs=None):
            self.seconds.append(time.perf_counter() - self.began)

    return Stopwatch()


def measure(name, optimizer, rounds):
    """Seconds a step, by normalization: a list over the rounds; and the steps of an epoch."""
    family, data = families.FAMILIES[name], training_runs.data_of(name)
    chosen = [each for each in family.normalizations(optimizer) if not naming.is_start(each)]
    models = {}
    for each in chosen:
        has_own_gain = naming.method_of(each) == "weight_normalization"
        mode = None if naming.is_plain(each) or has_own_gain else "fixed"
        mode = families.PENALTIES[0] if naming.is_regularized(each) else mode
        # A rate at which no model diverges: what is computed does not depend on it.
        run = tuning.Run(name, each, optimizer, "time", None, 0, search.Point(1e-6, 1.0, mode))
        models[each], _ = training_runs.Model(name, each, optimizer).new(run)
    options = family.options(
        optimizer=optimizer, epochs=1, warmup_epochs=0, learning_rate=run.point.rate
    )
    seconds = {each: [] for each in chosen}
    for number in progress.bar(range(rounds + 1), desc=f"{name}, {optimizer}", unit="round"):
        for each, model in models.items():
            watch = stopwatch()
            family.module.train(model, data, options, [watch])
            steps = int(model.optimizer.iterations) // (number + 1)
            if number:
                seconds[each].append(watch.seconds[0] / steps)
    return seconds, steps


def parse(words=None):
    parser = arguments.parser("benchmarks.comparison.step_times", __doc__)
    families.add_families(parser)
    families.add_optimizers(parser)
    parser.set_defaults(families=None)
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each (%(default)s)")
    parser.add_argument("--core", type=int, default=0, help="which to run on (%(default)s)")
    arguments.add_results(parser, "comparison")
    return parser.parse_args(words)


def main(words=None):
    options = parse(words)
    training_runs.start(options.core)
    path = options.results / "step-times.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    recorded = [
        name
        for name in families.FAMILIES
        # Where training starts changes nothing about a step.
        if name not in families.STARTS and (options.results / f"{name}.jsonl").exists()
    ]
    cells = itertools.product(options.families or recorded, options.optimizers)
    for name, optimizer in cells:
        if optimizer not in families.FAMILIES[name].rates:
            continue
        seconds, steps = measure(name, optimizer, options.rounds)
        found.setdefault(name, {})[optimizer] = {
            "seconds": {each: [float(f"{s:.4g}") for s in own] for each, own in seconds.items()},
            "steps": steps,
            **environment.environment(),
        }
        plain = statistics.median(seconds[families.PLAIN])
        for each, own in seconds.items():
            print(f"{name:6} {optimizer:6} {each:42} {statistics.median(own) / plain:6.2f} × plain")
        options.results.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
