import keras
import numpy as np
import pytest

from keras_wcond.linalg.arrays import cast, widened
from tests.helpers import normal, to_numpy


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_arrays_are_cast_to_the_dtype_that_is_named(dtype):
    x = normal(3, 4).astype("float64")
    found = cast(x, dtype)
    assert isinstance(found, np.ndarray)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, x.astype(dtype))


@pytest.mark.parametrize(
    ("dtype", "wide"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_arrays_are_widened_on_the_host(dtype, wide):
    x = normal(3, 4).astype(dtype)
    found = widened(x)
    assert isinstance(found, np.ndarray)
    assert found.dtype == wide
    np.testing.assert_array_equal(found, x.astype(wide))


def test_half_precision_is_widened_to_float32_whatever_floatx_is():
    default = keras.backend.floatx()
    keras.backend.set_floatx("float16")
    try:
        assert widened(normal(3, 4).astype("float16")).dtype == "float32"
    finally:
        keras.backend.set_floatx(default)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_variable_is_widened_as_its_value(dtype):
    variable = keras.Variable(normal(3, 4), dtype=dtype)
    found = widened(variable)
    assert not isinstance(found, keras.Variable)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_array_equal(to_numpy(found), normal(3, 4).astype(dtype))
