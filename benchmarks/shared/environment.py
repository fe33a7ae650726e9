"""What every result carries: versions and hardware."""

import contextlib
import importlib.metadata
import os
import platform


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
