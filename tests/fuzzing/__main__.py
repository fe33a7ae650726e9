"""Fuzzes the backend in force, in chunks that are each recorded: a run goes on where it was.

python -m tests.fuzzing --count 10000 --seed 0
"""

import argparse
import concurrent.futures
import contextlib
import json
import multiprocessing
import pathlib
import sys
from concurrent.futures import process

from benchmarks.shared.environment import environment
from benchmarks.shared.progress import bar
from benchmarks.shared.records import RESULTS
from tests.fuzzing.search import run_chunk, totals

# Each chunk has a process of its own: TensorFlow keeps what it traced, which fills the memory after
# some thousands of configurations.
CHUNK = 250
ATTEMPTS = 5


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="configurations (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first chunk (%(default)s)")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=RESULTS / "fuzzing",
        help="folder of the records, a file for each backend (%(default)s)",
    )
    options = parser.parse_args()
    conditions = environment("hypothesis", "numpy")
    path = options.output / f"{conditions['backend']}.json"
    chunks = _recorded(path, conditions)
    done = {(chunk["seed"], chunk["count"]) for chunk in chunks}
    with bar(None, total=options.count, unit="configuration") as progress:
        for index, first in enumerate(range(0, options.count, CHUNK)):
            seed, count = options.seed + index, min(CHUNK, options.count - first)
            if (seed, count) not in done:
                chunks.append(_in_a_process(run_chunk, count, seed))
                _write(path, conditions, chunks)
            progress.set_postfix(failed=sum(chunk["failed"] for chunk in chunks))
            progress.update(count)
    for failure in (failure for chunk in chunks for failure in chunk["failures"]):
        print(f"{failure['reason']}\n    {failure['configuration']}\n")
    print(", ".join(f"{name}: {value}" for name, value in totals(chunks).items()))
    sys.exit(any(chunk["failed"] for chunk in chunks))


def _in_a_process(function, *arguments):
    """The record of a chunk, with the number of times that its process had to be started again."""
    context = multiprocessing.get_context("spawn")
    for restarts in range(ATTEMPTS):
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
            future = executor.submit(function, *arguments)
            with contextlib.suppress(process.BrokenProcessPool):
                return {**future.result(), "restarts": restarts}
    raise SystemExit(f"The process of the chunk {arguments} ended {ATTEMPTS} times.")


def _recorded(path, conditions):
    """The chunks that were recorded with the same versions."""
    if not path.exists():
        return []
    record = json.loads(path.read_text())
    return record["chunks"] if record["versions"] == conditions["versions"] else []


def _write(path, conditions, chunks):
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {**conditions, "total": totals(chunks), "chunks": chunks}
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
