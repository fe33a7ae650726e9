"""Training over several devices gives the numbers of one, and exchanges no kernel."""

import json
import math
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parent
EXAMPLES = FOLDER.parents[1] / "examples" / "devices"


def only_on(backend):
    return pytest.mark.skipif(
        keras.backend.backend() != backend, reason=f"an engine of {backend}'s own"
    )


def result(script, **environment):
    """What a script prints, from a process with devices of its own."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": keras.backend.backend(),
        "PYTHONPATH": os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")]),
        **environment,
    }
    run = subprocess.run(
        [sys.executable, FOLDER / script], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def by_layout():
    """Ten steps with JAX for each layout, on eight simulated devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    # For devices that are parts of one CPU: which accelerators there are must not matter.
    return result("run_jax.py", XLA_FLAGS=flags, JAX_PLATFORMS="cpu")


def gathered_kernels(found, kernels):
    """The exchanges that make a whole kernel, in any layout of its axes."""
    shapes = {tuple(sorted(shape)) for shape in kernels}
    # Attention's kernels are seen as matrices on the way, with units or columns as one axis.
    for shape in kernels:
        for split in range(1, len(shape)):
            shapes.add(tuple(sorted((math.prod(shape[:split]), math.prod(shape[split:])))))
    return [
        shape
        for kind, shape in found
        if kind in ("all-gather", "all-to-all", "collective-permute")
        and tuple(sorted(shape)) in shapes
    ]


@only_on("jax")
@pytest.mark.parametrize("layout", ["data", "units", "inputs", "transformer"])
def test_layouts_of_jax_give_the_losses_of_one_device(by_layout, layout):
    expected = by_layout["single"]["losses"]
    assert len(expected) == 10
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(by_layout[layout]["losses"], expected, rtol=1e-5)


@only_on("jax")
@pytest.mark.parametrize("layout", ["data", "units", "inputs", "transformer"])
def test_no_kernel_is_gathered_by_jax(by_layout, layout):
    found = by_layout[layout]
    assert found["exchanges"]
    assert gathered_kernels(found["exchanges"], found["kernels"]) == []


@only_on("jax")
def test_a_gathered_kernel_would_be_seen(by_layout):
    kernels = by_layout["units"]["kernels"]
    assert gathered_kernels(by_layout["gathered on purpose"]["exchanges"], kernels) == [[64, 512]]


@only_on("jax")
def test_norms_along_units_are_not_exchanged(by_layout):
    """Of the layer of 512 units, the 128 of each device: but for the gradient of its bias."""
    vectors = {
        layout: [shape for _, shape in found["exchanges"] if len(shape) == 1]
        for layout, found in by_layout.items()
    }
    for layout in ("units", "transformer"):
        assert [512] not in vectors[layout]
        assert vectors[layout].count([128]) == 1
    assert [512] in vectors["inputs"]


@only_on("tensorflow")
def test_two_replicas_of_tensorflow_give_the_losses_of_one_device():
    found = result("run_tensorflow.py", CUDA_VISIBLE_DEVICES="")
    assert found["replicas"] == 2
    assert len(found["single"]) == 10
    np.testing.assert_allclose(found["many"], found["single"], rtol=1e-5)


@only_on("torch")
def test_two_processes_of_pytorch_give_the_losses_of_one():
    found = result("run_torch.py", CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")
    assert len(found["1-0"]) == 10
    np.testing.assert_allclose(found["2-0"], found["1-0"], rtol=1e-5)
    assert found["2-0"] == found["2-1"]
