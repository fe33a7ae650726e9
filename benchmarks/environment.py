"""What every result carries: versions, hardware, repeats and spread."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import statistics
import sys


def environment(*packages):
    """The versions and the machine that a result was measured with."""
    import keras

    backend = keras.backend.backend()
    installed = {}
    for name in ("keras_wcond", "keras", backend, *packages):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return {
        "backend": backend,
        "versions": installed,
        "machine": f"Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"{processor()}, {gpu() or 'no GPU used'}",
    }


def gpu():
    """The name of the GPU that the backend computes on, or None."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        (device, *_) = jax.devices()
        return device.device_kind if device.platform == "gpu" else None
    if backend == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        details = map(tf.config.experimental.get_device_details, devices[:1])
        return next((each.get("device_name", "a GPU") for each in details), None)
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def processor():
    """Its kind and the instruction sets that it has, on which depends how fast it multiplies."""
    import numpy as np

    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", ())
    return " ".join([platform.machine(), *([f"({', '.join(found)})"] if found else ())])


def conditions(results):
    """The same as two lines of Markdown; more, where results were measured with several."""
    kinds = set()
    for result in results:
        versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        kinds.add(f"- {versions}\n- {result['machine']}")
    return "\n".join(sorted(kinds))


def bar(items, **arguments):
    """A progress bar; a line now and then where it cannot be redrawn in place, as in a log."""
    import tqdm

    return tqdm.tqdm(items, mininterval=0.1 if sys.stderr.isatty() else 10.0, **arguments)


def spread(values, form="{:.3g}"):
    """Mean ± standard deviation."""
    values = list(values)
    if len(values) == 1:
        return form.format(values[0])
    return f"{form.format(statistics.mean(values))} ± {form.format(statistics.stdev(values))}"


def replace_block(path, name, text):
    """Puts text between the marks of a block in a document, and leaves the rest as it is."""
    path = pathlib.Path(path)
    document = path.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if document.count(start) != 1 or document.count(end) != 1:
        raise ValueError(f"Expected one block {name!r} in {path}. Received: none, or several.")
    before, rest = document.split(start)
    after = rest.split(end)[1]
    path.write_text(f"{before}{start}{text.strip()}\n{end}{after}", encoding="utf-8")
