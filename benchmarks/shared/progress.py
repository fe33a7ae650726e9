"""Progress bars of the commands."""

import sys


def bar(items, **arguments):
    """A progress bar; a line now and then where it cannot be redrawn in place, as in a log."""
    import tqdm

    return tqdm.tqdm(items, mininterval=0.1 if sys.stderr.isatty() else 10.0, **arguments)
