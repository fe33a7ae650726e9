import numpy as np
import pytest

from keras_wcond.linalg.arrays import cast, widened
from tests.helpers import normal


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
