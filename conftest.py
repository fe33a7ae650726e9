"""Numerics and doctest names shared by the tests and the docstrings' examples."""

import functools
import importlib.util
import os
import pathlib
import re
import tempfile
import unittest

import keras
import numpy as np
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


class _ConditionalPython(PythonCodeBlockParser):
    """Blocks of Python, each of which a comment before it may skip.

    Sybil's own skips are examples of their own, which another process may run.
    """

    COMMENT = re.compile(r"<!-- skip if (?P<condition>.+?): (?P<reason>.+) -->\s*\Z")

    def __call__(self, document):
        for region in super().__call__(document):
            comment = self.COMMENT.search(document.text, endpos=region.start)
            if comment:
                region.evaluator = functools.partial(_run_unless, comment, region.evaluator)
            yield region


def _run_unless(comment, evaluate, example):
    names = {
        "backend": keras.backend.backend(),
        "is_installed": lambda module: importlib.util.find_spec(module) is not None,
    }
    if eval(comment["condition"], names):
        raise unittest.SkipTest(comment["reason"])
    return evaluate(example)


def _enter_a_new_folder(namespace):
    folder = tempfile.TemporaryDirectory()
    namespace["_folder"], namespace["_before"] = folder, pathlib.Path.cwd()
    os.chdir(folder.name)


def _leave_and_remove_it(namespace):
    os.chdir(namespace["_before"])
    namespace["_folder"].cleanup()


# Each example of the documents runs on its own, in a folder that is thrown away. Blocks fenced as
# `py` continue one another: `tests/documents/test_tutorial.py` runs them.
pytest_collect_file = Sybil(
    parsers=[_ConditionalPython()],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    setup=_enter_a_new_folder,
    teardown=_leave_and_remove_it,
).pytest()


# Each imports the backend it is for, which is not there where another one is in force.
collect_ignore = [
    f"keras_wcond/backends/{name}"
    for name in ("jax.py", "tensorflow.py", "torch")
    if name.removesuffix(".py") != keras.backend.backend()
]


def pytest_configure():
    _compute_products_in_full_float32()
    if keras.backend.backend() == "jax":
        _lower_programs_in_one_context()


def _compute_products_in_full_float32():
    """On GPUs with TF32, products of float32 are otherwise rounded to 10 bits."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
    elif backend == "torch":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def _lower_programs_in_one_context():
    """JAX makes a context of its compiler anew for each: half the time that a small one takes."""
    from jax._src.interpreters import mlir  # Nothing public has a say in it.

    if hasattr(mlir, "make_ir_context"):
        mlir.make_ir_context = functools.cache(mlir.make_ir_context)


def _has_gpu() -> bool:
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.default_backend() == "gpu"
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    return False


def pytest_collection_modifyitems(items):
    if all("gpu" not in item.keywords for item in items) or _has_gpu():
        return
    skip = pytest.mark.skip(reason=f"no GPU that Keras' {keras.backend.backend()} backend can see")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _names_of_examples(doctest_namespace):
    doctest_namespace.update(keras=keras, np=np)


@pytest.fixture(autouse=True)
def _reproducible(monkeypatch):
    """Every test starts from the same seed and width, and leaves Keras' settings alone."""
    monkeypatch.setenv("COLUMNS", "120")
    keras.utils.set_random_seed(0)
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)
