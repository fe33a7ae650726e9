"""One mathematics for tensors and for NumPy arrays."""

import types
from typing import Any

import keras
import numpy as np
from keras import ops

# What `keras.ops` has and NumPy has not, or by another name.
_NUMPY = types.SimpleNamespace(
    **{
        name: getattr(np, name)
        for name in (
            "abs",
            "exp",
            "eye",
            "log",
            "logical_and",
            "max",
            "ones_like",
            "reshape",
            "sqrt",
            "squeeze",
            "square",
            "sum",
            "transpose",
            "where",
        )
    },
    rsqrt=lambda x: 1.0 / np.sqrt(x),
    stop_gradient=lambda x: x,
)


def namespace(x: Any) -> Any:
    """`keras.ops` for a tensor, and the same operations of NumPy for a NumPy array.

    What is computed of an array stays in its dtype and on the host: the instruments look at
    kernels in float64 on every backend, without compiling for each shape of kernel.
    """
    return _NUMPY if isinstance(x, np.ndarray) else ops


def tensor(x: Any) -> Any:
    """The value of a variable, or anything else as a tensor."""
    return x.value if isinstance(x, keras.Variable) else ops.convert_to_tensor(x)


def array(x: Any) -> np.ndarray:
    """A tensor, variable or array as a NumPy array."""
    return x if isinstance(x, np.ndarray) else ops.convert_to_numpy(x)


def is_wide(dtype: Any) -> bool:
    """Whether a dtype is float32 or float64."""
    # Keras' `result_type` makes float32 of the two, unless its `floatx` is float64.
    return keras.backend.standardize_dtype(dtype) in ("float32", "float64")


def widened(x: Any) -> Any:
    """The tensor, variable or array in float32, or in float64 if that is its own dtype."""
    # Not the variable's own `dtype`, which is `floatx` where autocasting is switched off.
    x = x if isinstance(x, np.ndarray) else tensor(x)
    return x if is_wide(x.dtype) else cast(x, "float32")


def cast(x: Any, dtype: Any) -> Any:
    """The tensor in a dtype; itself if that is its own, which `ops.cast` takes longer to tell."""
    if x.dtype == dtype:  # As the backend names it, which takes least of all.
        return x
    if isinstance(x, np.ndarray):
        return x.astype(keras.backend.standardize_dtype(dtype))
    dtype = keras.backend.standardize_dtype(dtype)
    return x if keras.backend.standardize_dtype(x.dtype) == dtype else ops.cast(x, dtype)
