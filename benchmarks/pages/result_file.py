"""The JSON file of a page's numbers: measured and saved, or read again for the report alone."""

import json
import pathlib


def add_arguments(parser):
    """Adds --results, the folder of the file, and --only-table, a file to read."""
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        default=pathlib.Path("outputs"),
        help="folder for the numbers, as JSON (%(default)s)",
    )
    parser.add_argument(
        "--only-table", type=pathlib.Path, help="measure nothing: the report of a JSON file"
    )


def load(options, name, measure):
    """The numbers of a page.

    Args:
        options: With `results` and `only_table`.
        name: Name of the file that is written, with `{backend}` for that of the numbers.
        measure: Function without arguments that measures them, called if no file is named.
    """
    path = options.only_table
    if path is None:
        result = measure()
        options.results.mkdir(parents=True, exist_ok=True)
        path = options.results / name.format(backend=result["backend"])
        path.write_text(json.dumps(result, indent=1) + "\n")
    return json.loads(path.read_text())
