"""When to scale the product of inputs and a kernel in place of the kernel."""

import math
from collections.abc import Sequence
from typing import Any

# An unknown size of a batch counts as that of `fit()` by default.
USUAL_BATCH_SIZE = 32
# A smaller kernel is scaled in less time than it takes to call the operations that spare it.
SMALLEST_KERNEL = 2**15
# In kernels: up to this size its fewer passes take less time, by measurement.
LARGEST_PRODUCT = 2


def is_cheaper_than_kernel(inputs_shape: Sequence[Any], kernel_shape: Sequence[int]) -> bool:
    """Whether scaling the product with a `(inputs, units)` kernel costs less than scaling that.

    Only static sizes decide: those that a program is compiled or exported for as symbols count as
    unknown. Both forms give the same numbers, but for rounding: this one costs passes over the
    product, the other one more passes over the kernel.
    """
    sizes = (size if isinstance(size, int) else USUAL_BATCH_SIZE for size in inputs_shape[:-1])
    rows = math.prod(sizes)
    is_small = math.prod(kernel_shape) < SMALLEST_KERNEL
    return not is_small and rows <= LARGEST_PRODUCT * kernel_shape[0]
