"""The modules of examples/, which is no package: its files run as scripts."""

import importlib
import pathlib
import sys

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def module(name):
    """A module of examples/, whose own imports find each other as they do in a script."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module(name)
