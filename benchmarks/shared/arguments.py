"""Arguments that several commands have."""

import argparse
import pathlib

from benchmarks.shared import records


def parser(module, description):
    """A parser for a module that is run by `python -m`."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_results(parser, program):
    """Adds --results, the folder of the records, by default that of a program."""
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        default=records.RESULTS / program,
        help="folder of the records (%(default)s)",
    )
