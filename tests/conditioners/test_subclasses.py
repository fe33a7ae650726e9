"""A subclass of a method computes its own function in every form, not the one it extends."""

import keras
import numpy as np
import pytest

from keras_wcond import (
    Conditioned,
    ConditionedConv2D,
    ConditionedDense,
    WeightConditioning,
    conditioners,
    conditioning_report,
)
from keras_wcond.conditioners import (
    METHODS,
    Conditioner,
    NewtonOrthogonalization,
    RowEquilibration,
)
from tests import helpers
from tests.helpers import normal, relative, to_numpy

# Large enough for a Dense layer to scale the product in place of the kernel.
INPUTS, UNITS = 256, 160


def doubling(form, parent):
    """A subclass of a method that overrides one form and doubles what the parent computes."""

    def override(self, *args):
        return 2.0 * getattr(parent, form)(self, *args)

    return type(f"Doubled{parent.__name__}", (parent,), {form: override})


@pytest.mark.parametrize("parent", METHODS.values(), ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("form", ["condition", "condition_kernel"])
def test_one_overridden_form_decides_all(form, parent):
    method = doubling(form, parent)()
    kernel = normal(INPUTS, UNITS)
    expected = 2.0 * to_numpy(parent()(kernel))
    assert relative(method(kernel), expected) <= 1e-5
    layer = ConditionedDense(UNITS, kernel_conditioner=method)
    inputs = normal(3, INPUTS, seed=1)
    layer.build((None, INPUTS))
    layer.kernel.assign(kernel)
    assert relative(layer(inputs), inputs @ expected) <= 1e-4
    assert relative(layer.fold()(inputs), inputs @ expected) <= 1e-4
    assert relative(WeightConditioning(method)(kernel), expected) <= 1e-5


@pytest.mark.parametrize("form", ["condition", "condition_kernel"])
def test_overridden_form_within_a_sequence_and_a_wrapper(form):
    method = doubling(form, RowEquilibration)()
    kernel = normal(6, 4)
    expected = 2.0 * to_numpy(RowEquilibration()(kernel))
    assert relative(conditioners.Sequential([method])(kernel), expected) <= 1e-6
    inner = keras.layers.Dense(4, use_bias=False)
    inner.build((None, 6))
    inner.kernel.assign(kernel)
    layer = Conditioned(inner, kernel_conditioner=method)
    assert relative(layer(np.eye(6, dtype="float32")), expected) <= 1e-6


def test_overridden_kernel_form_is_read_by_convolutions_and_the_report():
    class LastUnitOnly(RowEquilibration):
        def condition_kernel(self, kernel, layout):
            kept = np.eye(kernel.shape[-1], dtype="float32")[-1]
            return kernel * keras.ops.convert_to_tensor(kept)

    class Identity(RowEquilibration):
        def condition_kernel(self, kernel, layout):
            return kernel

    layer = ConditionedConv2D(4, 3, kernel_conditioner=LastUnitOnly())
    layer(normal(1, 5, 5, 2))
    kernel = to_numpy(layer.conditioned_kernel)
    assert np.all(kernel[..., :-1] == 0.0)
    assert np.array_equal(kernel[..., -1], to_numpy(layer.kernel)[..., -1])

    badly_scaled = normal(8, 5) * np.geomspace(1.0, 1e3, 5, dtype="float32")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(5)])
    model.layers[0].kernel.assign(badly_scaled)
    (record,) = conditioning_report(model, methods=[Identity()]).records
    expected = np.linalg.cond(badly_scaled.astype("float64"))
    assert record["with_Identity()"] == pytest.approx(expected, rel=1e-3)


def test_forms_are_resolved_through_mixins_and_generations():
    class Negation:
        def condition_kernel(self, kernel, layout):
            return -kernel

    class Negated(Negation, RowEquilibration):
        pass

    class Grandchild(Negated):
        pass

    class Restored(Negated):
        condition_kernel = RowEquilibration.condition_kernel
        condition = RowEquilibration.condition
        product = RowEquilibration.product

    kernel = normal(INPUTS, UNITS)
    inputs = normal(3, INPUTS, seed=1)
    expected = ((Negated(), -kernel), (Grandchild(), -kernel), (Restored(), RowEquilibration()))
    for method, conditioned in expected:
        conditioned = conditioned(kernel) if callable(conditioned) else conditioned
        layer = ConditionedDense(UNITS, kernel_conditioner=method)
        layer.build((None, INPUTS))
        layer.kernel.assign(kernel)
        assert relative(method(kernel), conditioned) <= 1e-6
        assert relative(layer(inputs), inputs @ to_numpy(conditioned)) <= 1e-5
    assert Restored.product is RowEquilibration.product


def test_product_alone_is_refused():
    def product(self, inputs, kernel, gain=None, bias=None):
        return keras.ops.matmul(inputs, kernel)

    message = r"to define `condition\(\)` or `condition_kernel\(\)` as well. Received: Mine"
    with pytest.raises(TypeError, match=message):
        type("Mine", (RowEquilibration,), {"product": product})
    stated = {"product": product, "condition": RowEquilibration.condition}
    assert type("Stated", (RowEquilibration,), stated).product is product


def test_product_is_not_inherited_with_another_function_of_singular_values():
    class Unchanged(NewtonOrthogonalization):
        def condition_along(self, matrices, column_axis):
            return matrices

    kernel, inputs = normal(160, 160), normal(3, 160)
    assert Unchanged().product(inputs, kernel) is None
    layer = ConditionedDense(160, use_bias=False, kernel_conditioner=Unchanged())
    layer.build((None, 160))
    layer.kernel.assign(kernel)
    assert relative(layer(inputs), inputs @ kernel) <= 1e-5
    for method in METHODS.values():
        product = method().product(*map(keras.ops.convert_to_tensor, (inputs, kernel)))
        expected = inputs @ helpers.conditioned(method(), kernel)
        assert product is None or relative(product, expected) <= 1e-4


def test_unit_rows_are_not_inherited_with_another_function():
    """The gain "auto" multiplies rows of unit mean square norm, whatever the parent's rows are."""
    method = doubling("condition", RowEquilibration)()
    assert RowEquilibration.has_unit_rows
    assert not method.has_unit_rows
    layer = ConditionedDense(4, "relu", kernel_conditioner=method, gain="auto")
    layer(normal(2, 6))
    norms = np.linalg.norm(to_numpy(layer.conditioned_kernel), axis=0)
    assert norms == pytest.approx(np.full(4, np.sqrt(2.0)), rel=1e-4)
    assert type("Same", (RowEquilibration,), {})().has_unit_rows


def test_message_for_a_method_without_a_form():
    with pytest.raises(NotImplementedError, match=r"Empty must implement `condition\(matrices\)`"):
        type("Empty", (Conditioner,), {})()(normal(3, 4))


def test_arguments_that_a_copy_would_lose_are_refused():
    class Powered(Conditioner):
        def __init__(self, power):
            self.power = power

        def condition(self, matrices):
            return matrices

    with pytest.raises(NotImplementedError, match=r"Powered, whose constructor takes \['power'\]"):
        ConditionedDense(3, kernel_conditioner=Powered(2.0)).get_config()
