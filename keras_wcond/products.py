"""When to scale the product of inputs and a kernel in place of the kernel."""

import math
from collections.abc import Sequence

# An unknown size of a batch counts as that of `fit()` by default.
USUAL_BATCH_SIZE = 32
# A smaller kernel is scaled in less time than it takes to call the operations that spare it.
SMALLEST_KERNEL = 2**15


def is_smaller_than_kernel(inputs_shape: Sequence[int | None], kernel_shape: Sequence[int]) -> bool:
    """Whether the product with a `(inputs, units)` kernel has fewer entries than the kernel.

    Told from static shapes. Both forms give the same numbers, but for rounding: this one costs
    passes over the product, the other one passes over the kernel.
    """
    rows = math.prod(size or USUAL_BATCH_SIZE for size in inputs_shape[:-1])
    return math.prod(kernel_shape) >= SMALLEST_KERNEL and rows < kernel_shape[0]
