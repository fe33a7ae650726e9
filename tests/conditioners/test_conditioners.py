import re

import keras
import numpy as np
import pytest

from keras_wcond import ConditionedDense, WeightConditioning, conditioners
from keras_wcond.conditioners import Conditioner, RowEquilibration
from keras_wcond.conditioners.scaling import Scaling
from keras_wcond.conditioners.singular_value_method import SingularValueMethod
from tests.helpers import normal, to_numpy


@keras.saving.register_keras_serializable(package="tests")
class Power(Conditioner):
    """A user's own method, with an argument."""

    def __init__(self, exponent=2.0):
        self.exponent = exponent

    def condition(self, matrices):
        return keras.ops.power(matrices, self.exponent)

    def get_config(self):
        return {"exponent": self.exponent}


@pytest.mark.parametrize(
    "identifier",
    [
        "row_equilibration",
        "RowEquilibration",
        RowEquilibration,
        RowEquilibration(),
        conditioners.serialize(RowEquilibration()),
        {"class_name": "RowEquilibration", "config": {}},
        {"class_name": "row_equilibration", "config": {}},
    ],
)
def test_get_understands_every_form(identifier):
    assert conditioners.get(identifier) == RowEquilibration()


def test_get_keeps_none_and_instances():
    instance = RowEquilibration()
    assert conditioners.get(None) is None
    assert conditioners.get(instance) is instance


@pytest.mark.parametrize("conditioner", [RowEquilibration(), Power(3.0), None])
def test_config_round_trip(conditioner):
    config = conditioners.serialize(conditioner)
    assert conditioners.deserialize(config) == conditioner


def test_conditioners_compare_by_config():
    assert Power(2.0) == Power(2.0)
    assert Power(2.0) != Power(3.0)
    assert Power() != RowEquilibration()
    assert len({Power(2.0), Power(2.0), Power(3.0)}) == 2
    assert hash(Power(2.0)) == hash(Power(2.0))
    different = [Power(2.0), Power(3.0), RowEquilibration(), conditioners.ColumnEquilibration()]
    assert len({hash(each) for each in different}) == len(different)
    assert repr(Power(3.0)) == "Power(exponent=3.0)"
    assert repr(conditioners.NewtonStep(0.5, True)) == "NewtonStep(strength=0.5, center=True)"


def test_defaults_are_the_documented_ones():
    step = {"center": False, "differentiate_multiplier": False}
    expected = {
        "column_equilibration": {"differentiate_multiplier": True},
        "frobenius_normalization": {"differentiate_multiplier": True},
        "newton_orthogonalization": {"iterations": 5, **step, "center": True},
        "newton_step": {"strength": 1.0, **step},
        "polar_express": {"steps": 2, "lower": 0.05, "degree": 5, **step},
        "polynomial_preconditioner": {"degree": 4, "differentiate_multiplier": False},
        "row_equilibration": {"differentiate_multiplier": True},
        "ruiz_equilibration": {"iterations": 20, "differentiate_multiplier": True},
        "spectral_normalization": {"iterations": 6, "differentiate_multiplier": True},
        "weight_standardization": {"differentiate_multiplier": True},
    }
    found = {name: method().get_config() for name, method in conditioners.METHODS.items()}
    assert found == expected


def test_own_conditioner_sees_one_row_per_unit():
    kernel = normal(3, 4)
    np.testing.assert_allclose(to_numpy(Power()(kernel)), kernel**2, rtol=1e-6)


def test_unknown_name_is_refused_with_the_nearest_one():
    message = (
        r"one of 'column_equilibration', .*Received: 'row_equilibraton'. "
        r"Did you mean 'row_equilibration'\?"
    )
    with pytest.raises(ValueError, match=message):
        conditioners.get("row_equilibraton")
    with pytest.raises(ValueError, match=r"Received: 'unheard_of'\.$"):
        conditioners.get("unheard_of")


@pytest.mark.parametrize("identifier", [3, 1.5, {1}, True, keras.ops.tanh, dict])
def test_wrong_type_is_refused(identifier):
    received = f"Received: {identifier!r} (of type {type(identifier).__name__})"
    message = r"Expected a conditioner to be None.*" + re.escape(received)
    with pytest.raises(TypeError, match=message):
        conditioners.get(identifier)


def test_config_of_another_object_is_refused():
    config = keras.saving.serialize_keras_object(keras.layers.Dense(2))
    with pytest.raises(TypeError, match=r"Expected a conditioner .*Received: {'module': 'keras"):
        conditioners.deserialize(config)


@pytest.mark.parametrize("identifier", ["Sequential", conditioners.Sequential])
def test_sequence_without_methods_is_refused(identifier):
    message = "the conditioners that a `Sequential` is made of. Received: " + re.escape(
        f"{identifier!r}. Give a list"
    )
    with pytest.raises(ValueError, match=message):
        conditioners.get(identifier)


@pytest.mark.parametrize(
    ("base", "arguments", "missing"),
    [
        (Conditioner, (), r"`condition\(matrices\)`"),
        (Scaling, (), r"`scale\(\)`"),
        (SingularValueMethod, (False, False), r"`condition_along\(\)`"),
    ],
)
def test_own_conditioner_without_a_method_says_what_to_write(base, arguments, missing):
    class Empty(base):
        pass

    with pytest.raises(NotImplementedError, match=f"Empty must implement {missing}"):
        Empty(*arguments)(normal(3, 4))


def test_own_product_alone_does_not_make_a_conditioner():
    class Product(Conditioner):
        def product(self, inputs, kernel, gain=None, bias=None):
            return inputs @ kernel

    with pytest.raises(NotImplementedError, match=r"Product must implement `condition\(matri"):
        Product()(normal(3, 4))


def test_own_conditioner_with_two_forms_keeps_both():
    class Both(RowEquilibration):
        def condition(self, matrices):
            return 2.0 * matrices

        def condition_kernel(self, kernel, layout):
            return 3.0 * kernel

    kernel = normal(3, 4)
    np.testing.assert_array_equal(to_numpy(Both()(kernel)), 3.0 * kernel)
    np.testing.assert_array_equal(Both().condition(kernel[None]), 2.0 * kernel[None])
    assert Both.has_unit_rows is False
    assert Both.works_on_arrays is False


@pytest.mark.parametrize("apply", [RowEquilibration(), WeightConditioning()], ids=repr)
def test_kernels_of_integers_are_refused(apply):
    message = r"of a floating-point dtype. Received: weights of dtype int32 and shape \(3, 4\)"
    with pytest.raises(TypeError, match=message):
        apply(np.ones((3, 4), "int32"))


def test_own_conditioner_that_changes_the_shape_is_refused():
    class Transposing(Conditioner):
        def condition(self, matrices):
            return keras.ops.transpose(matrices, (0, 2, 1))

    message = r"Transposing.condition\(\)` to return .* \(1, 4, 3\). Received: \(1, 3, 4\)"
    with pytest.raises(ValueError, match=message):
        Transposing()(normal(3, 4))


def test_own_way_with_a_kernel_that_changes_the_shape_is_refused():
    class Transposing(Conditioner):
        def condition_kernel(self, kernel, layout):
            return keras.ops.transpose(kernel)

    message = r"Transposing.condition_kernel\(\)` to return .* \(3, 4\). Received: \(4, 3\)"
    with pytest.raises(ValueError, match=message):
        Transposing()(normal(3, 4))
    with pytest.raises(ValueError, match=message):
        ConditionedDense(4, kernel_conditioner=Transposing())(normal(2, 3))


def test_beginning_of_a_name_is_completed():
    for beginning, name in (
        ("newton_o", "newton_orthogonalization"),
        ("ruiz", "ruiz_equilibration"),
    ):
        with pytest.raises(ValueError, match=f"Did you mean '{name}'"):
            conditioners.get(beginning)
    with pytest.raises(
        ValueError, match="Did you mean 'newton_step' or 'newton_orthogonalization'"
    ):
        conditioners.get("newton")
