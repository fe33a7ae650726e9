"""The modules of examples/, which is no package: its files run as scripts."""

import importlib
import pathlib
import sys

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
FAMILIES = ("cnn", "vit", "nerf", "shape", "deep")


def example(name):
    """A module, such as "cnn" or "common.images", that imports others as a script does."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module(name)
