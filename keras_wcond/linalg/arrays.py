"""Operations on tensors of any backend and on NumPy arrays, under the same names."""

import types
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

# A tensor of any backend or a NumPy array. Some functions also accept a `keras.Variable`.
# Keras is not typed, and its backends' tensors share no base class.
Tensor: TypeAlias = Any
# A data type: its name, such as `"float32"`, or the object of a backend or of NumPy.
Dtype: TypeAlias = Any
# One axis or several, negative ones counted from the end.
Axes: TypeAlias = int | tuple[int, ...]

# The operations of `keras.ops` that also apply to NumPy arrays. NumPy lacks the last two.
_NUMPY = types.SimpleNamespace(
    **{
        name: getattr(np, name)
        for name in (
            "abs",
            "diagonal",
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


def namespace(x: Tensor) -> Any:
    """The operations for a tensor or for a NumPy array.

    Results for an array keep its dtype and stay on the host. Diagnostics can thus compute in
    float64 on every backend, without a compilation for each kernel shape.

    Args:
        x: Tensor or NumPy array.

    Returns:
        `keras.ops` for a tensor. For a NumPy array, an object with NumPy's functions under the
        names of `keras.ops`.
    """
    return _NUMPY if isinstance(x, np.ndarray) else ops


def tensor(x: Tensor) -> Tensor:
    """The value of a variable, or an array or number as a tensor."""
    return x.value if isinstance(x, keras.Variable) else ops.convert_to_tensor(x)


def array(x: Tensor) -> np.ndarray:
    """A tensor, variable or array as a NumPy array."""
    return x if isinstance(x, np.ndarray) else ops.convert_to_numpy(x)


def is_wide(dtype: Dtype) -> bool:
    """Whether a dtype is float32 or float64."""
    # Not by Keras' `result_type`, which gives float32 for both unless `floatx` is float64.
    return keras.backend.standardize_dtype(dtype) in ("float32", "float64")


def is_floating(dtype: Dtype) -> bool:
    """Whether a dtype is a floating-point one of any width."""
    return "float" in keras.backend.standardize_dtype(dtype)


def widened(x: Tensor) -> Tensor:
    """The tensor, variable or array in float32, or in float64 if that is its own dtype."""
    # Not by the variable's own `dtype`, which is `floatx` where autocasting is switched off.
    x = x if isinstance(x, np.ndarray) else tensor(x)
    if is_wide(x.dtype):
        return x
    if not is_floating(x.dtype):
        # Cast back to integers, conditioned weights would become zeros.
        raise TypeError(
            "Expected weights of a floating-point dtype. Received: weights of dtype "
            f"{keras.backend.standardize_dtype(x.dtype)} and shape {tuple(x.shape)}"
        )
    return cast(x, "float32")


def cast(x: Tensor, dtype: Dtype) -> Tensor:
    """The tensor or array in a dtype, or itself if that is its own dtype."""
    # This comparison of the backend's own dtypes is faster than the one in `ops.cast`.
    if x.dtype == dtype:
        return x
    if isinstance(x, np.ndarray):
        return x.astype(keras.backend.standardize_dtype(dtype))
    dtype = keras.backend.standardize_dtype(dtype)
    return x if keras.backend.standardize_dtype(x.dtype) == dtype else ops.cast(x, dtype)
