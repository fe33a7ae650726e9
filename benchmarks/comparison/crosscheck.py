"""Repeat a part of a comparison on another backend, at the points that were chosen before.

Trains and scores the plain network and the conditioned ones from the same seeds, which draw other
numbers on another backend, so that scores are to agree within their noise. Appends JSON lines to
a folder of the backend, which `report` sets beside those of the comparison. Goes on from the
lines that are there.
"""

import dataclasses
import pathlib

from benchmarks.comparison import families, tuning
from benchmarks.comparison import run as comparison
from benchmarks.shared import records

METHODS = (families.PLAIN, families.ROWS, families.NEWTON, families.POLYNOMIAL, families.UPDATES)


def pending_at(folder):
    """The tests at the points that the records of a folder chose, as `tuning.pending`."""

    def pending(name, optimizer, known):
        chosen = [
            record
            for record in tuning.latest(records.read(folder / f"{name}.jsonl"))
            if record["optimizer"] == optimizer
        ]
        runs = [
            run
            for method in METHODS
            for run in tuning.tests(name, method, optimizer, chosen)
            if run.phase == "test"
        ]
        # A comparison that was made again may have chosen others.
        points = {run.key: dataclasses.asdict(run.point) for run in runs}
        here = [
            record
            for record in known
            if all(
                record[field] == value
                for field, value in points.get(tuning.key_of(record), {}).items()
            )
        ]
        done = tuning.keys_done(here)
        return [run for run in runs if run.key not in done]

    return pending


def parse(words=None):
    import keras

    parser = comparison.parser("benchmarks.comparison.crosscheck", __doc__)
    parser.set_defaults(results=records.RESULTS / "crosscheck" / keras.backend.backend())
    parser.add_argument(
        "--reference",
        type=pathlib.Path,
        default=records.RESULTS / "comparison",
        help="folder of the comparison that chose the points (%(default)s)",
    )
    return parser.parse_args(words)


def main(words=None):
    options = parse(words)
    comparison.compare(options, pending_at(options.reference))


if __name__ == "__main__":
    main()
