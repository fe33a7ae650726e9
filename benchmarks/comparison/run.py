"""Compare conditioning with its baselines and with controls, all tuned by the same budget.

Trains every family of example models under every normalization with both optimizers: first the
same number of runs each, the last ones around the best point on validation data, of which one is
chosen; then fresh seeds at that point, scored on test data. Appends one JSON line a run, and goes
on from the lines that are there: stop it whenever you like. `python -m
benchmarks.comparison.report` makes tables and pictures of them. The Keras backend is the one
KERAS_BACKEND or keras.json names.
"""

import concurrent.futures
import multiprocessing
import os
import queue as queues
import sys
import time

from benchmarks.comparison import families, training_runs, tuning
from benchmarks.shared import arguments, environment, progress, records


def start(core, results):
    """Prepares a process, which sends each record as soon as it has it."""
    global _results
    _results = results
    training_runs.start(core)


def perform(runs):
    """Performs runs one after the other."""
    for run in runs:
        _results.put(training_runs.perform(run))


class Processes:
    """A process for each core, which keeps what it compiled for the methods that are its own.

    Args:
        cores: Numbers of the cores.
    """

    def __init__(self, cores):
        context = multiprocessing.get_context("spawn")
        self.results = context.Queue()
        self.pools = [
            concurrent.futures.ProcessPoolExecutor(1, context, start, (core, self.results))
            for core in cores
        ]
        self.owners = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pool in self.pools:
            pool.shutdown(cancel_futures=True)

    def perform(self, runs):
        """The records of runs, as they come."""
        methods = {}
        for run in runs:
            methods.setdefault(run.normalization, []).append(run)
        jobs = []
        for name, own in methods.items():
            owner = self.owners.setdefault(name, len(self.owners) % len(self.pools))
            jobs.append(self.pools[owner].submit(perform, own))
        left = len(runs)
        while left:
            try:
                yield self.results.get(timeout=5.0)
                left -= 1
            except queues.Empty:
                # An error, such as a process that was killed for memory, is raised here.
                for job in jobs:
                    if job.done():
                        job.result()


def compare(options, pending=tuning.pending):
    """Performs all that is pending, and writes each record down.

    Args:
        options: What `parse` returns.
        pending: Of a family, an optimizer and the records that there are, the runs to make.
    """
    conditions = environment.environment("scikit-learn", "scipy", "tensorflow-datasets", "trimesh")
    for name in options.families:
        path = options.results / f"{name}.jsonl"
        family = families.FAMILIES[name]
        with Processes(options.cores) as processes:
            for optimizer in (each for each in options.optimizers if each in family.rates):
                setting = family.fingerprint(optimizer, conditions["backend"])
                while runs := pending(name, optimizer, known(path, optimizer, setting)):
                    made = progress.bar(
                        processes.perform(runs),
                        total=len(runs),
                        unit="run",
                        desc=f"{name}, {optimizer}",
                    )
                    for record in made:
                        records.append(path, {**record, "setting": setting, **conditions})


def known(path, optimizer, setting):
    """The records of an optimizer in a file, which have to be of the same setting."""
    found = [record for record in records.read(path) if record["optimizer"] == optimizer]
    others = {record["setting"] for record in found} - {setting}
    if others:
        raise ValueError(
            f"Expected the records in {path} to be of this setting and backend, {setting}. "
            f"Received: {', '.join(sorted(others))}. Name another folder by --results, or remove "
            "the file."
        )
    return found


def parser(module, description):
    """Options of a command that trains families."""
    parser = arguments.parser(module, description)
    families.add_families(parser)
    families.add_optimizers(parser)
    parser.add_argument(
        "--cores",
        nargs="+",
        type=int,
        default=list(range(os.cpu_count() or 1)),
        help="numbers of the cores to run on, one process each (%(default)s)",
    )
    arguments.add_results(parser, "comparison")
    return parser


def parse(words=None):
    return parser("benchmarks.comparison.run", __doc__).parse_args(words)


def main():
    options = parse()
    began = time.perf_counter()
    compare(options)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
