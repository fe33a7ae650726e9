"""Kernels with unit columns, in the arithmetic that takes least on each device."""

import contextlib
import functools

import torch
from torch.autograd import forward_ad

from keras_wcond.backends.torch.derivatives import gradients_of
from keras_wcond.linalg.norms import NORMS_WITHIN_RANGE, SMALLEST_NORMAL, normalized

# The devices that `torch.autocast` is commonly switched on for.
AUTOCAST_DEVICES = ("cpu", "cuda", "mps")


def equilibrated(kernel, units):
    if not is_transformed(kernel):
        if is_summed_in_float64(kernel):
            return _EquilibratedOnGPU.apply(kernel, units)
        if kernel.device.type == "cpu":
            return _equilibrated_on_cpu(kernel, units)
    return _differentiable(kernel, units)


def _differentiable(kernel, units):
    return normalized(kernel.reshape(-1, units), axis=0).reshape(kernel.shape)


def _equilibrated_on_cpu(kernel, units):
    """The kernel with unit columns by the functions beneath PyTorch's own weight normalization.

    They make no temporaries, and their gradient takes no Python, which for small kernels is most
    of the time. But they square what is out of range, their second derivative lacks that of the
    norms, and they want contiguous memory without asking for it.
    """
    matrix, axis = _as_read(kernel, units)
    gain = matrix.new_ones([units if each == axis else 1 for each in range(matrix.ndim)])
    conditioned, norms = torch._weight_norm_interface(matrix, gain, axis)
    if not is_within_range(*norms.detach().aminmax(), *NORMS_WITHIN_RANGE):
        return _differentiable(kernel, units)
    if conditioned.grad_fn is not None:
        columns = tuple(each for each in range(matrix.ndim) if each != axis)
        function = functools.partial(normalized, axis=columns)
        hook = functools.partial(_with_second_derivative, function, matrix)
        conditioned.grad_fn.register_hook(hook)
    return _as_kept(conditioned, kernel)


def _with_second_derivative(function, matrix, gradients, upstreams):
    """A gradient that is to be differentiated in turn, in place of what PyTorch computed."""
    if torch.is_grad_enabled() and upstreams[0] is not None:
        return *gradients_of(function, (matrix,), upstreams[0]), *gradients[1:]
    return None  # The gradients stay.


class _EquilibratedOnGPU(torch.autograd.Function):
    """The same in few operations, which for most kernels take longer to start than to run."""

    @staticmethod
    def forward(ctx, kernel, units):
        matrix = kernel.reshape(-1, units)
        inverse = wide_inverse_norms(matrix)
        ctx.save_for_backward(kernel, inverse)
        return _times_wide(matrix, inverse).view(kernel.shape)

    @staticmethod
    def backward(ctx, upstream):
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


def wide_inverse_norms(matrix):
    """`1 / ‖columnⱼ‖` in float64; zero where a column is zero, NaN where it is not finite."""
    norms = torch.linalg.vector_norm(matrix, dim=0, dtype=torch.float64)
    norms.nan_to_num_(nan=float("nan"), posinf=float("nan"))
    return norms.masked_fill_(norms < SMALLEST_NORMAL, float("inf")).reciprocal_()


def _times_wide(matrix, factor):
    """The product with a factor in float64, rounded to the matrix' own dtype as it is written."""
    return torch.mul(matrix, factor, out=matrix.new_empty(matrix.shape))


def _as_read(kernel, units):
    """The kernel in contiguous memory as PyTorch's operation reads it, and its axis of units.

    A convolution over images or volumes has units and channels first, would copy the kernel into
    that order, and its gradient comes in it. Any other kernel is read as the matrix that it is.
    """
    if kernel.ndim > 3 and kernel.shape[-1] == units:
        return kernel.permute(-1, -2, *range(kernel.ndim - 2)).contiguous(), 0
    matrix = kernel if kernel.ndim == 2 else kernel.reshape(-1, units)
    return matrix.contiguous(), 1


def _as_kept(result, kernel):
    """What was computed of a kernel as read, in the order in which Keras keeps that."""
    if result.ndim == kernel.ndim == 2:
        return result
    if result.ndim == kernel.ndim > 3:
        return result.permute(*range(2, kernel.ndim), 1, 0)
    return result.view(kernel.shape)


def without_autocast():
    scopes = contextlib.ExitStack()
    for device in AUTOCAST_DEVICES:
        if torch.is_autocast_enabled(device):
            scopes.enter_context(torch.autocast(device, enabled=False))
    return scopes


def is_transformed(*tensors):
    """Whether tensors stand for others: in exports, compilation, `torch.func`, forward mode."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()  # There is no public way to ask.
        or any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)
    )


def is_summed_in_float64(kernel):
    """Whether norms are: a GPU cannot be asked for their range without waiting for it.

    Squares of float32 are within that of float64, and a reduction reads the one and adds up the
    other.
    """
    return kernel.device.type == "cuda" and kernel.dtype == torch.float32


def is_within_range(smallest, largest, low, high):
    return low < smallest.item() and largest.item() < high
