"""Compare conditioning with its rivals and with controls, all tuned by the same budget.

Trains every family of example models under every normalization with both optimizers: first 16
runs each, of which the best on validation data is chosen, then fresh seeds at that point, scored
on test data. Appends one JSON line a run, and goes on from the lines that are there: stop it
whenever you like. report.py makes tables and pictures of them. The Keras backend is the one
KERAS_BACKEND or keras.json names.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import queue as queues
import sys
import time

import environment
import lines
import settings
import training_runs
import tuning

# Runs of one cell that a process takes at a time: what it compiled serves all of them.
BATCH = 16


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


def start(cores, results):
    """Prepares a process, which sends each record as soon as it has it."""
    global _results
    _results = results
    training_runs.start(cores)


def perform(runs):
    """Performs runs one after the other."""
    for run in runs:
        _results.put(training_runs.perform(run))


def perform_all(batches, cores):
    """The records of batches of runs, as they come, from one process for each core."""
    context = multiprocessing.get_context("spawn")
    queue, results = context.Queue(), context.Queue()
    for core in cores:
        queue.put(core)
    with concurrent.futures.ProcessPoolExecutor(
        len(cores), context, start, (queue, results)
    ) as pool:
        jobs = [pool.submit(perform, batch) for batch in batches]
        left = sum(map(len, batches))
        while left:
            try:
                yield results.get(timeout=5.0)
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
        setting = settings.FAMILIES[name].fingerprint(conditions["backend"])
        for optimizer in options.optimizers:
            while runs := pending(name, optimizer, known(path, setting)):
                with environment.bar(
                    perform_all(batches(runs), options.cores),
                    total=len(runs),
                    unit="run",
                    desc=f"{name}, {optimizer}",
                ) as records:
                    for record in records:
                        lines.append(path, {**record, "setting": setting, **conditions})


def known(path, setting):
    """The records of a file, which have to be of the same setting."""
    records = lines.read(path)
    others = {record["setting"] for record in records} - {setting}
    if others:
        raise ValueError(
            f"Expected the records in {path} to be of this setting and backend, {setting}. "
            f"Received: {', '.join(sorted(others))}. Name another folder by --results, or remove "
            "the file."
        )
    return records


def parser(description):
    """Options of a command that trains families."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    settings.add_families(parser)
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
    settings.add_results(parser)
    return parser


def parse(words=None):
    return parser(__doc__).parse_args(words)


def main():
    options = parse()
    began = time.perf_counter()
    compare(options)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
