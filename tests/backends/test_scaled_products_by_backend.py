"""Scaled products in the transformations and programs of one backend."""

import keras
import numpy as np
import pytest

from keras_wcond import backends
from keras_wcond.conditioners import (
    RowEquilibration,
)
from tests.helpers import normal, relative, to_numpy
from tests.reference import equilibrated

ROWS, INPUTS, UNITS = 8, 256, 130
IS_JAX = keras.backend.backend() == "jax"


@pytest.mark.skipif(not IS_JAX, reason="vectorizes by JAX")
def test_stacks_of_kernels_are_vectorized_by_jax():
    import jax

    kernels, x = normal(3, 64, 5), keras.ops.convert_to_tensor(normal(ROWS, 64))
    kernels[1] *= 1e-25  # Only some of them are within range.
    together = jax.vmap(lambda k: backends.equilibrated_product(x, k, np.float32(1.0)))(kernels)
    for one, kernel in zip(together, kernels, strict=True):
        assert relative(one, to_numpy(x) @ equilibrated(kernel)) <= 1e-5


@pytest.mark.skipif(not IS_JAX, reason="exports by JAX")
def test_programs_for_any_number_of_rows_are_exported_by_jax():
    import jax
    from jax import export

    kernel = normal(64, 5)
    function = jax.jit(lambda x: backends.equilibrated_product(x, kernel, np.float32(1.0)))
    rows = jax.ShapeDtypeStruct((*export.symbolic_shape("rows"), 64), "float32")
    exported = export.export(function)(rows)
    for number in (1, 3, 32):
        x = normal(number, 64)
        assert relative(exported.call(x), x @ equilibrated(kernel)) <= 1e-5


@pytest.mark.skipif(not IS_JAX, reason="reads the memory that JAX' programs are given")
@pytest.mark.parametrize("one_norm", [False, True])
def test_no_temporary_as_large_as_the_kernel_is_made_by_jax(one_norm):
    import jax

    if jax.default_backend() != "cpu":
        pytest.skip("needs a CPU as the default device, whose compiler it is about")
    width, one = 4096, np.float32(1.0)
    kernel, inputs = (jax.ShapeDtypeStruct((rows, width), "float32") for rows in (width, 128))

    def temporaries(layer):
        def loss(kernels, x):
            for each in kernels:
                x = jax.nn.relu(layer(x, each))
            return jax.numpy.mean(x**2)

        def step(kernels, x):
            gradients = jax.grad(loss)(kernels, x)
            return [each - 1e-3 * found for each, found in zip(kernels, gradients, strict=True)]

        compiled = jax.jit(step, donate_argnums=0).lower([kernel] * 3, inputs).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    plain = temporaries(jax.numpy.matmul)
    scaled = temporaries(lambda x, k: backends.equilibrated_product(x, k, one, None, one_norm))
    assert scaled - plain <= 0.1 * 4 * width**2


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="transforms by PyTorch")
@pytest.mark.parametrize("transform", ["vmap", "grad", "jvp", "dual numbers"])
def test_is_transformed_by_pytorch(transform):
    import torch
    from torch.autograd import forward_ad

    arrays = normal(ROWS, 64), np.float32(1.0), normal(64, 5, seed=1), normal(64, 5, seed=2)
    x, one, kernel, tangent = (keras.ops.convert_to_tensor(array) for array in arrays)

    def scaled(k):
        return backends.equilibrated_product(x, k, one)

    def formed(k):
        return x @ RowEquilibration()(k)

    def apply(function):
        if transform == "vmap":
            return torch.func.vmap(function)(torch.stack([kernel, tangent]))
        if transform == "grad":
            return torch.func.grad(lambda k: function(k).square().sum())(kernel)
        if transform == "jvp":
            return torch.func.jvp(function, (kernel,), (tangent,))[1]
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(function(forward_ad.make_dual(kernel, tangent))).tangent

    assert relative(apply(scaled), apply(formed)) <= 1e-5
