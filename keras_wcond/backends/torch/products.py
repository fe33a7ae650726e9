"""Products of inputs and a kernel with unit rows or columns, without forming that kernel.

On a CPU, temporaries of the size of a large kernel are slow, because they do not fit into caches.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

from keras_wcond.backends.torch import kernels
from keras_wcond.backends.torch.derivatives import gradients_of
from keras_wcond.backends.torch.kernels import is_transformed, is_within_range
from keras_wcond.linalg.norms import (
    NORMS_WITHIN_RANGE,
    SQUARES_WITHIN_RANGE,
    inverse_column_norms,
    with_zero_rows_fixed,
)

# A kernel with this number of entries and its squares fit into the cache of a core.
CACHED = 2**18


def equilibrated_product(
    inputs: torch.Tensor,
    kernel: torch.Tensor,
    gain: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    one_norm: bool = False,
) -> torch.Tensor:
    if is_transformed(*(tensor for tensor in (inputs, kernel, gain, bias) if tensor is not None)):
        return _differentiable_product(inputs, kernel, gain, bias, one_norm)
    is_large = len(inputs) >= len(kernel) and kernel.device.type == "cpu"
    has_trained_gain = gain is not None and gain.requires_grad
    function = _large_product if is_large and not has_trained_gain else _equilibrated_product
    return function(inputs, kernel, gain, bias, one_norm)


def column_equilibrated_product(
    inputs: torch.Tensor,
    kernel: torch.Tensor,
    gain: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    is_read, inverse = _is_read_on_cpu(inputs, kernel), None
    if is_read:
        norms = torch.linalg.vector_norm(kernel.detach(), dim=1)
        smallest, largest = norms.aminmax()
        if is_within_range(smallest, largest, *NORMS_WITHIN_RANGE):
            inverse = norms.reciprocal_()
    # A column with a non-zero first entry is not zero. The other entries are rarely read.
    if not is_read or (kernel[0] == 0.0).any().item():
        kernel = with_zero_rows_fixed(kernel, axis=0)
    if inverse is None:
        product = _product_by_row_norms(inputs, kernel)
    else:
        product = _product_by_known_norms(inputs, kernel, inverse)
    if gain is not None:
        return _scaled(product, gain, bias)
    return product if bias is None else product + bias


def _product_by_row_norms(inputs: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    return torch.mm(inputs * torch.mul(*inverse_column_norms(kernel.t())), kernel)


def _is_read_on_cpu(*tensors: torch.Tensor) -> bool:
    """Whether operations may depend on values. Reading them would wait for an accelerator."""
    return tensors[0].device.type == "cpu" and not is_transformed(*tensors)


def _differentiable_product(
    inputs: torch.Tensor,
    kernel: torch.Tensor,
    gain: torch.Tensor | None,
    bias: torch.Tensor | None,
    one_norm: bool,
) -> torch.Tensor:
    reciprocal, scale = inverse_column_norms(kernel, one_norm)
    return _scaled(torch.mm(inputs, kernel), _times(reciprocal * scale, gain), bias)


def _times(factor: torch.Tensor, gain: torch.Tensor | None) -> torch.Tensor:
    return factor if gain is None else factor * gain


def _scaled(
    product: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    if bias is None:
        return torch.mul(product, scale, out=out)
    return torch.addcmul(bias, product, scale, out=out)


class _EquilibratedProduct(torch.autograd.Function):
    """The product in as few passes over the kernel as PyTorch's operations allow.

    The norms need no temporary of the kernel's size, and the matrix product of the gradient adds
    to the correction by the norms.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        kernel: torch.Tensor,
        gain: torch.Tensor | None,
        bias: torch.Tensor | None,
        one_norm: bool,
    ) -> torch.Tensor:
        inverse, ctx.is_within_range = _inverse_norms(kernel, one_norm)
        ctx.one_norm = one_norm
        product, scale = torch.mm(inputs, kernel), _times(inverse, gain)
        ctx.save_for_backward(inputs, kernel, gain, bias, product, inverse, scale)
        return _scaled(product, scale, bias)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, kernel, gain, bias, product, inverse, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # The gradient has to be differentiable.
            function = functools.partial(_differentiable_product, one_norm=ctx.one_norm)
            return *gradients_of(function, (inputs, kernel, gain, bias), upstream), None
        for_inputs, for_kernel, for_gain, for_bias, _ = ctx.needs_input_grad
        scaled = torch.mul(upstream, product)
        along = scaled.sum(0).mul_(inverse)
        torch.mul(upstream, scale, out=scaled)
        gradients: list[torch.Tensor | None] = [None] * 5
        if for_inputs:
            gradients[0] = torch.mm(scaled, kernel.t())
        if for_kernel:
            pulled = _times(along, gain)
            if ctx.one_norm:
                pulled = pulled.sum()
            # The factor is negative, because `addmm_` with a `beta` would take another pass.
            factor = (pulled * inverse).neg_()
            if ctx.is_within_range:
                correction = torch.mul(kernel, factor.mul_(inverse))
            else:  # The square of an inverse norm may be out of range. These factors are about 1.
                correction = torch.mul(kernel, inverse).mul_(factor)
            gradients[1] = correction.addmm_(inputs.t(), scaled)
        if for_gain:
            gradients[2] = along if gain.ndim else along.sum()
        if for_bias:
            gradients[3] = upstream.sum(0)
        return tuple(gradients)


class _LargeProduct(torch.autograd.Function):
    """The product if it is at least as large as the kernel and the gain is not trained.

    The product is scaled in place. The gradient in the norms comes from the gradient in the
    kernel, because a pass over these two costs less than keeping the product and reading it again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        kernel: torch.Tensor,
        gain: torch.Tensor | None,
        bias: torch.Tensor | None,
        one_norm: bool,
    ) -> torch.Tensor:
        inverse, ctx.is_within_range = _inverse_norms(kernel, one_norm)
        ctx.one_norm = one_norm
        product, scale = torch.mm(inputs, kernel), _times(inverse, gain)
        ctx.save_for_backward(inputs, kernel, gain, bias, inverse, scale)
        return _scaled(product, scale, bias, out=product)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, kernel, gain, bias, inverse, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # The gradient has to be differentiable.
            function = functools.partial(_differentiable_product, one_norm=ctx.one_norm)
            return *gradients_of(function, (inputs, kernel, gain, bias), upstream), None
        for_inputs, for_kernel, _, for_bias, _ = ctx.needs_input_grad
        gradients: list[torch.Tensor | None] = [None] * 5
        scaled = torch.mul(upstream, scale)
        if for_inputs:
            gradients[0] = torch.mm(scaled, kernel.t())
        if for_kernel:
            if not ctx.is_within_range:  # The square of an inverse norm may be out of range.
                kernel, inverse = torch.mul(kernel, inverse), torch.ones_like(inverse)
            gradient = torch.mm(inputs.t(), scaled)
            along = _column_products(kernel, gradient)
            if ctx.one_norm:
                along = along.sum()
            gradients[1] = gradient.addcmul_(kernel, (along * inverse).mul_(inverse).neg_())
        if for_bias:
            gradients[3] = upstream.sum(0)
        return tuple(gradients)


class _ProductByRowNorms(torch.autograd.Function):
    """The product of the kernel and of inputs divided by the norms of the kernel's rows.

    The gradient in the norms comes from the gradient in the kernel. The gradient in the inputs
    would cost another matrix product if the inputs need no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, kernel: torch.Tensor, inverse: torch.Tensor
    ) -> torch.Tensor:
        scaled = inputs * inverse
        ctx.save_for_backward(inputs, kernel, inverse, scaled)
        return torch.mm(scaled, kernel)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, kernel, inverse, scaled = ctx.saved_tensors
        if torch.is_grad_enabled():  # The gradient has to be differentiable.
            return *gradients_of(_product_by_row_norms, (inputs, kernel), upstream), None
        for_inputs, for_kernel, _ = ctx.needs_input_grad
        gradients: list[torch.Tensor | None] = [None] * 3
        if for_inputs:
            gradients[0] = torch.mm(upstream, kernel.t()).mul_(inverse)
        if for_kernel:
            gradient = torch.mm(scaled.t(), upstream)
            along = torch.linalg.vecdot(kernel, gradient)
            factor = along.mul_(inverse).mul_(inverse).neg_()
            gradients[1] = gradient.addcmul_(kernel, factor.unsqueeze(1))
        return tuple(gradients)


# `apply` is not typed.
_equilibrated_product: Callable[..., torch.Tensor] = _EquilibratedProduct.apply
_large_product: Callable[..., torch.Tensor] = _LargeProduct.apply
_product_by_known_norms: Callable[..., torch.Tensor] = _ProductByRowNorms.apply


def _inverse_norms(kernel: torch.Tensor, one_norm: bool) -> tuple[torch.Tensor, bool]:
    """`1 / ‖kernelⱼ‖`, and whether all of these are known to have squares within range."""
    if kernels.is_summed_in_float64(kernel) and not one_norm:
        return kernels.wide_inverse_norms(kernel).to(kernel.dtype), False
    if kernel.device.type == "cpu":  # Reading values would wait for an accelerator.
        squares = _column_products(kernel, kernel)
        smallest, largest = squares.aminmax()
        if one_norm:
            largest = squares.sum()
        if is_within_range(smallest, largest, *SQUARES_WITHIN_RANGE):
            return (largest.expand_as(squares) if one_norm else squares).rsqrt(), True
    return torch.mul(*inverse_column_norms(kernel, one_norm)), False


def _column_products(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """`firstⱼ · secondⱼ` for each column j, without protection from overflow or underflow."""
    if first.numel() <= CACHED:
        return torch.mul(first, second).sum(0)
    # The gradient in the scale of batch normalization, with mean 0, variance 0 and ε = 1. No other
    # operation multiplies and sums over columns without writing a matrix.
    zeros = first.new_zeros(first.shape[1])
    products: torch.Tensor = torch.ops.aten.native_batch_norm_backward(
        second, first, None, zeros, zeros, None, None, False, 1.0, [False, True, False]
    )[1]
    return products
