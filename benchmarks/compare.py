"""Compare conditioning with its rivals and with controls, all tuned by the same budget.

Trains every family of example models under every normalization with both optimizers: first 16
runs each, of which the best on validation data is chosen, then fresh seeds at that point, scored
on test data. Appends one JSON line a run, and goes on from the lines that are there: stop it
whenever you like. report.py makes tables and pictures of them. The Keras backend is the one
KERAS_BACKEND or keras.json names; jax is the fastest on CPUs.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import pathlib
import sys
import time

import environment
import lines
import settings
import training_runs
import tuning

RESULTS = pathlib.Path(__file__).parent / "results" / "comparison"
# Runs of one cell that a process takes at a time: what it compiled serves all of them.
BATCH = 13


def batches(runs):
    """Runs of the same cell together, so many at a time."""
    cells = {}
    for run in runs:
        cells.setdefault((run.normalization, run.phase == "tune"), []).append(run)
    return [
        cell[start : start + BATCH]
        for cell in cells.values()
        for start in range(0, len(cell), BATCH)
    ]


def perform(runs):
    """The records of runs, one after the other."""
    return [training_runs.perform(run) for run in runs]


def processes(cores):
    """A pool of processes, one on each core."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    for core in cores:
        queue.put(core)
    return concurrent.futures.ProcessPoolExecutor(
        len(cores), context, training_runs.start, (queue,)
    )


def compare(options):
    """Performs all that is pending, and writes each record down."""
    conditions = environment.environment("scikit-learn", "scipy", "tensorflow-datasets", "trimesh")
    with processes(options.cores) as pool:
        for family in options.families:
            for optimizer in options.optimizers:
                path = options.results / f"{family}.jsonl"
                while runs := tuning.pending(family, optimizer, lines.read(path)):
                    _perform_all(pool, runs, path, conditions, f"{family}, {optimizer}")


def _perform_all(pool, runs, path, conditions, description):
    jobs = [pool.submit(perform, batch) for batch in batches(runs)]
    with environment.bar(None, total=len(runs), unit="run", desc=description) as bar:
        for job in concurrent.futures.as_completed(jobs):
            for record in job.result():
                lines.append(path, {**record, **conditions})
                bar.update()


def parse(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--families", nargs="+", choices=settings.FAMILIES, default=list(settings.FAMILIES)
    )
    parser.add_argument(
        "--optimizers", nargs="+", choices=settings.OPTIMIZERS, default=list(settings.OPTIMIZERS)
    )
    parser.add_argument(
        "--cores",
        nargs="+",
        type=int,
        default=list(range(os.cpu_count() or 1)),
        help="numbers of the cores to run on, one process each (%(default)s)",
    )
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        default=RESULTS,
        help="folder of the records, a file for each family (%(default)s)",
    )
    return parser.parse_args(words)


def main():
    options = parse()
    began = time.perf_counter()
    compare(options)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
