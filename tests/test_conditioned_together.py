"""Kernels that are conditioned in one call, and one by one."""

import keras
import numpy as np
import pytest

from keras_wcond import backends, condition_optimizer, conditioners, reparametrization
from keras_wcond.kernels.layout import KernelLayout
from keras_wcond.reparametrization import Reparametrization
from tests.helpers import normal, to_numpy
from tests.test_optimizers import train

LAYOUTS = [KernelLayout(), KernelLayout(blocks=2), KernelLayout((-2, -1), matrix_axes=-2)]


@pytest.mark.parametrize("gain", [1.0, 0.5, "kernel_norm"])
@pytest.mark.parametrize(
    "name", ["row_equilibration", "newton_step", "polar_express", "frobenius_normalization"]
)
def test_the_same_as_one_by_one(name, gain):
    kernels = [normal(3, 4, 6, seed=seed) for seed in range(6)]
    kernels += [normal(5, 7, seed=seed) for seed in range(2)]
    layouts = [*LAYOUTS, *LAYOUTS, KernelLayout(), KernelLayout()]
    tensors = [keras.ops.convert_to_tensor(kernel) for kernel in kernels]
    function = Reparametrization(conditioners.get(name), gain)
    found = function.apply_to_all(tensors, layouts)
    assert len(found) == len(kernels)
    for kernel, layout, result in zip(tensors, layouts, found, strict=True):
        np.testing.assert_allclose(
            to_numpy(result), to_numpy(function.apply(kernel, layout)), rtol=1e-4, atol=1e-6
        )


def test_small_kernels_of_one_shape_take_one_call(monkeypatch):
    calls = []

    class Halved(conditioners.Conditioner):
        def condition(self, matrices):
            calls.append(tuple(matrices.shape))
            return 0.5 * matrices

    kernels = [keras.ops.ones(shape) for shape in ((2, 3), (2, 3), (4, 3), (2, 3))]
    found = Reparametrization(Halved()).apply_to_all(kernels, [KernelLayout()] * 4)
    assert calls == [(3, 3, 2), (1, 3, 4)]
    assert [tuple(each.shape) for each in found] == [(2, 3), (2, 3), (4, 3), (2, 3)]
    monkeypatch.setattr(reparametrization, "LARGEST_STACKED", 10)
    Reparametrization(Halved()).apply_to_all(kernels, [KernelLayout()] * 4)
    assert calls[2:] == [(3, 3, 2), (1, 3, 4)]
    monkeypatch.setattr(reparametrization, "LARGEST_STACKED", 5)
    Reparametrization(Halved()).apply_to_all(kernels, [KernelLayout()] * 4)
    assert calls[4:] == [(1, 3, 2), (1, 3, 2), (1, 3, 4), (1, 3, 2)]


def test_large_kernels_are_groups_of_their_own(monkeypatch):
    monkeypatch.setattr(reparametrization, "LARGEST_STACKED", 8)
    kernels = [keras.ops.ones(shape) for shape in ((2, 3), (3, 3), (2, 3), (3, 3))]
    layouts = [KernelLayout()] * 4
    groups = Reparametrization(conditioners.get("newton_step")).groups(kernels, layouts)
    assert groups == [[0, 2], [1], [3]]


@pytest.mark.parametrize(("largest", "expected"), [(100, 1), (5, 3)])
def test_each_group_has_a_conditional_of_its_own(monkeypatch, largest, expected):
    monkeypatch.setattr(reparametrization, "LARGEST_STACKED", largest)
    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(4) for _ in range(3))])
    optimizer = condition_optimizer(
        "sgd", model, weight_conditioner="newton_step", every=2, layers=keras.layers.Dense
    )
    before = [to_numpy(layer.kernel) for layer in model.layers]
    calls, cond = [], keras.ops.cond
    monkeypatch.setattr(keras.ops, "cond", lambda *each: calls.append(each) or cond(*each))
    zeros = [keras.ops.zeros(each.shape) for each in model.trainable_variables]
    optimizer.apply(zeros, model.trainable_variables)
    assert len(calls) == expected
    for kernel, layer in zip(before, model.layers, strict=True):
        np.testing.assert_array_equal(to_numpy(layer.kernel), kernel)
    optimizer.apply(zeros, model.trainable_variables)
    for kernel, layer in zip(before, model.layers, strict=True):
        found = to_numpy(conditioners.NewtonStep()(kernel))
        np.testing.assert_allclose(to_numpy(layer.kernel), found, rtol=1e-4, atol=1e-6)


def test_a_kernel_that_is_not_finite_harms_no_other():
    kernels = [normal(5, 4, seed=seed) for seed in range(3)]
    kernels[1][2, 2] = np.nan
    function = Reparametrization(conditioners.get("polar_express"), "kernel_norm")
    tensors = [keras.ops.convert_to_tensor(kernel) for kernel in kernels]
    found = [to_numpy(each) for each in function.apply_to_all(tensors, [KernelLayout()] * 3)]
    assert [bool(np.isfinite(each).all()) for each in found] == [True, False, True]


def square_layers():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, activation="tanh") for _ in range(3)]
    return keras.Sequential([keras.Input((8,)), *layers])


def test_an_optimizer_that_updates_variables_apart_does_the_same(monkeypatch):
    results = []
    for is_apart in (False, True):
        model = square_layers()
        monkeypatch.setattr(backends, "updates_variables_apart", lambda value=is_apart: value)
        optimizer = condition_optimizer("adam", model, "polar_express", layers=keras.layers.Layer)
        results.append(train(model, optimizer, steps=3))
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("update", [None, "polar_express"])
def test_frozen_kernels_and_missing_gradients(update):
    model = square_layers()
    optimizer = condition_optimizer(
        keras.optimizers.SGD(0.1), model, update, "newton_step", layers=keras.layers.Layer
    )
    variables = model.trainable_variables
    before = [to_numpy(variable) for variable in variables]
    optimizer.build(variables)
    gradients = [keras.ops.convert_to_tensor(normal(*v.shape, seed=1)) for v in variables]
    # Of the last kernel, whose update would otherwise be the sign that all are done.
    gradients[4] = None
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply(gradients, variables)
    changed = [not np.array_equal(a, to_numpy(v)) for a, v in zip(before, variables, strict=True)]
    assert changed == [True, True, True, True, False, True]
