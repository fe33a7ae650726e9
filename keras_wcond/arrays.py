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
            "sqrt",
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


def cast(x: Any, dtype: Any) -> Any:
    """The tensor in a dtype; itself if that is its own, which `ops.cast` takes longer to tell."""
    if x.dtype == dtype:  # As the backend names it, which takes least of all.
        return x
    dtype = keras.backend.standardize_dtype(dtype)
    return x if keras.backend.standardize_dtype(x.dtype) == dtype else ops.cast(x, dtype)
