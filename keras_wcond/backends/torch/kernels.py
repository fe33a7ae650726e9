"""Kernels with unit columns, by the fastest operations on each device."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from keras_wcond.backends.torch.derivatives import gradients_of
from keras_wcond.linalg.norms import NORMS_WITHIN_RANGE, SMALLEST_NORMAL, normalized

# The devices for which `torch.autocast` is commonly switched on.
AUTOCAST_DEVICES = ("cpu", "cuda", "mps")
# The function is not typed.
_unpack_dual: Callable[..., Any] = forward_ad.unpack_dual


def equilibrated(kernel: torch.Tensor, units: int) -> torch.Tensor:
    if not is_transformed(kernel):
        if is_summed_in_float64(kernel):
            return _equilibrated_on_gpu(kernel, units)
        if kernel.device.type == "cpu":
            return _equilibrated_on_cpu(kernel, units)
    return _differentiable(kernel, units)


def _differentiable(kernel: torch.Tensor, units: int) -> torch.Tensor:
    unit: torch.Tensor = normalized(kernel.reshape(-1, units), axis=0)
    return unit.reshape(kernel.shape)


def _equilibrated_on_cpu(kernel: torch.Tensor, units: int) -> torch.Tensor:
    """The kernel with unit columns, by the operations of PyTorch's own weight normalization.

    These operations need no temporaries, and their gradient runs no Python, which would take most
    of the time for small kernels. Three limitations are handled here. Their squares may be out of
    range, their second derivative lacks that of the norms, and they require contiguous memory
    without checking it.

    Args:
        kernel: Tensor on a CPU.
        units: Integer. The number of columns.

    Returns:
        Tensor of the kernel's shape.
    """
    matrix, axis = _as_read(kernel, units)
    gain = matrix.new_ones([units if each == axis else 1 for each in range(matrix.ndim)])
    conditioned, norms = torch._weight_norm_interface(matrix, gain, axis)
    smallest, largest = norms.detach().aminmax()
    if not is_within_range(smallest, largest, *NORMS_WITHIN_RANGE):
        return _differentiable(kernel, units)
    if conditioned.grad_fn is not None:
        columns = tuple(each for each in range(matrix.ndim) if each != axis)
        function = functools.partial(normalized, axis=columns)
        hook = functools.partial(_with_second_derivative, function, matrix)
        conditioned.grad_fn.register_hook(hook)
    return _as_kept(conditioned, kernel)


def _with_second_derivative(
    function: Callable[..., torch.Tensor],
    matrix: torch.Tensor,
    gradients: Sequence[torch.Tensor | None],
    upstreams: Sequence[torch.Tensor | None],
) -> tuple[torch.Tensor | None, ...] | None:
    """A differentiable gradient instead of PyTorch's, if gradients are enabled."""
    if torch.is_grad_enabled() and upstreams[0] is not None:
        return *gradients_of(function, (matrix,), upstreams[0]), *gradients[1:]
    return None  # PyTorch's gradients remain.


class _EquilibratedOnGPU(torch.autograd.Function):
    """The kernel with unit columns, by few operations.

    On a GPU, an operation on a kernel of common size takes longer to start than to run.
    """

    @staticmethod
    def forward(ctx: Any, kernel: torch.Tensor, units: int) -> torch.Tensor:
        matrix = kernel.reshape(-1, units)
        inverse = wide_inverse_norms(matrix)
        ctx.save_for_backward(kernel, inverse)
        return _times_wide(matrix, inverse).view(kernel.shape)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kernel, inverse = ctx.saved_tensors
        units = inverse.numel()
        if torch.is_grad_enabled():
            function = functools.partial(_differentiable, units=units)
            return *gradients_of(function, (kernel,), upstream), None
        upstream = upstream.reshape(-1, units)
        unit = _times_wide(kernel.reshape(-1, units), inverse)
        along = torch.mul(upstream, unit).sum(0)
        across = torch.addcmul(upstream, unit, along, value=-1.0)
        return _times_wide(across, inverse).view(kernel.shape), None


# `apply` is not typed.
_equilibrated_on_gpu: Callable[..., torch.Tensor] = _EquilibratedOnGPU.apply


def wide_inverse_norms(matrix: torch.Tensor) -> torch.Tensor:
    """`1 / ‖columnⱼ‖` in float64, with zero for zero columns and NaN for non-finite columns."""
    norms: torch.Tensor = torch.linalg.vector_norm(matrix, dim=0, dtype=torch.float64)
    norms.nan_to_num_(nan=float("nan"), posinf=float("nan"))
    return norms.masked_fill_(norms < SMALLEST_NORMAL, float("inf")).reciprocal_()


def _times_wide(matrix: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """The product with a factor in float64, written in the dtype of the matrix."""
    return torch.mul(matrix, factor, out=matrix.new_empty(matrix.shape))


def _as_read(kernel: torch.Tensor, units: int) -> tuple[torch.Tensor, int]:
    """The kernel in contiguous memory, in the order of axes that PyTorch's operation uses.

    The kernel of a convolution over images or volumes gets units and channels first. The
    convolution would copy it into that order anyway, and the gradient has the same order. Any
    other kernel becomes a matrix.

    Args:
        kernel: Tensor in Keras' order of axes.
        units: Integer. The number of output units.

    Returns:
        The contiguous tensor, and its axis of units.
    """
    if kernel.ndim > 3 and kernel.shape[-1] == units:
        return kernel.permute(-1, -2, *range(kernel.ndim - 2)).contiguous(), 0
    matrix = kernel if kernel.ndim == 2 else kernel.reshape(-1, units)
    return matrix.contiguous(), 1


def _as_kept(result: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """The result for a kernel from `_as_read()`, in Keras' order of axes."""
    if result.ndim == kernel.ndim == 2:
        return result
    if result.ndim == kernel.ndim > 3:
        return result.permute(*range(2, kernel.ndim), 1, 0)
    return result.view(kernel.shape)


def without_autocast() -> contextlib.ExitStack:
    scopes = contextlib.ExitStack()
    for device in AUTOCAST_DEVICES:
        if torch.is_autocast_enabled(device):
            scopes.enter_context(torch.autocast(device, enabled=False))
    return scopes


def is_transformed(*tensors: torch.Tensor) -> bool:
    """Whether an export, a compilation, `torch.func` or forward mode is running."""
    return (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()  # `torch.jit.is_tracing` is neither typed nor exported.
        or torch._C._are_functorch_transforms_active()  # There is no public way to ask.
        or any(_unpack_dual(tensor).tangent is not None for tensor in tensors)
    )


def is_summed_in_float64(kernel: torch.Tensor) -> bool:
    """Whether norms are summed in float64, as on a GPU.

    Checking the range of norms would wait for the GPU. The squares of float32 numbers are within
    the range of float64, and a reduction can read float32 and add up in float64.

    Args:
        kernel: Tensor.

    Returns:
        Boolean. Whether the kernel is a float32 tensor on a GPU.
    """
    is_on_gpu: bool = kernel.device.type == "cuda" and kernel.dtype == torch.float32
    return is_on_gpu


def is_within_range(smallest: torch.Tensor, largest: torch.Tensor, low: float, high: float) -> bool:
    """Whether two scalars lie between two bounds."""
    is_within: bool = low < smallest.item() and largest.item() < high
    return is_within
