import keras
import numpy as np
import pytest

from keras_wcond import ConditionedDense, conditioners
from keras_wcond.conditioners import PolynomialPreconditioner, RowEquilibration, Sequential
from tests import methods_in_numpy
from tests.helpers import normal, to_numpy

NAMES = ["row_equilibration", "polynomial_preconditioner"]


def test_applies_the_first_one_first():
    kernel = normal(6, 4)
    expected = methods_in_numpy.polynomial_preconditioner(
        methods_in_numpy.row_equilibration(kernel.T)
    ).T
    np.testing.assert_allclose(to_numpy(Sequential(NAMES)(kernel)), expected, rtol=1e-4, atol=1e-6)
    other = to_numpy(Sequential(NAMES[::-1])(kernel))
    assert np.max(np.abs(other - expected)) > 1e-2


def test_a_list_stands_for_a_sequence():
    sequence = Sequential([RowEquilibration(), PolynomialPreconditioner(degree=2)])
    assert conditioners.get([RowEquilibration, PolynomialPreconditioner(2)]) == sequence
    assert conditioners.get(NAMES) != sequence
    assert repr(sequence) == "Sequential([RowEquilibration(), PolynomialPreconditioner(degree=2)])"
    assert conditioners.deserialize(conditioners.serialize(sequence)) == sequence
    assert len({sequence, conditioners.get(NAMES), Sequential(NAMES)}) == 2


def test_layer_with_a_sequence_is_restored_from_its_config():
    layer = ConditionedDense(4, kernel_conditioner=NAMES)
    copy = ConditionedDense.from_config(layer.get_config())
    assert copy.kernel_conditioner == Sequential(NAMES)
    model = keras.Sequential([keras.Input((3,)), layer])
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    inputs = normal(2, 3)
    np.testing.assert_allclose(to_numpy(clone(inputs)), to_numpy(model(inputs)), rtol=1e-6)


@pytest.mark.parametrize("conditioners_given", [[], (), None, "row_equilibration"])
def test_something_to_apply_is_needed(conditioners_given):
    with pytest.raises(ValueError, match=r"list of at least one conditioner. Received: cond"):
        Sequential(conditioners_given)


def test_none_is_not_a_conditioner_here():
    with pytest.raises(ValueError, match=r"with None among them. Leave it out"):
        conditioners.get(["row_equilibration", None])
