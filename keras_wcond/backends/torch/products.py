"""Products of inputs and a kernel with unit rows or columns, which is never formed.

What costs on a CPU are temporaries as large as a kernel that caches do not hold.
"""

import functools

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

# A kernel of so many entries and its squares fit into the cache of a core.
CACHED = 2**18


def equilibrated_product(inputs, kernel, gain=None, bias=None, one_norm=False):
    if is_transformed(*(tensor for tensor in (inputs, kernel, gain, bias) if tensor is not None)):
        return _differentiable_product(inputs, kernel, gain, bias, one_norm)
    is_large = len(inputs) >= len(kernel) and kernel.device.type == "cpu"
    has_trained_gain = gain is not None and gain.requires_grad
    function = _LargeProduct if is_large and not has_trained_gain else _EquilibratedProduct
    return function.apply(inputs, kernel, gain, bias, one_norm)


def column_equilibrated_product(inputs, kernel, gain=None, bias=None):
    is_read, inverse = _is_read_on_cpu(inputs, kernel), None
    if is_read:
        norms = torch.linalg.vector_norm(kernel.detach(), dim=1)
        if is_within_range(*norms.aminmax(), *NORMS_WITHIN_RANGE):
            inverse = norms.reciprocal_()
    # No column is zero whose first entry is not: the others are rarely looked at.
    if not is_read or (kernel[0] == 0.0).any().item():
        kernel = with_zero_rows_fixed(kernel, axis=0)
    if inverse is None:
        product = _product_by_row_norms(inputs, kernel)
    else:
        product = _ProductByRowNorms.apply(inputs, kernel, inverse)
    if gain is not None:
        return _scaled(product, gain, bias)
    return product if bias is None else product + bias


def _product_by_row_norms(inputs, kernel):
    return torch.mm(inputs * torch.mul(*inverse_column_norms(kernel.t())), kernel)


def _is_read_on_cpu(*tensors):
    """Whether numbers may decide what is computed: an accelerator would have to be waited for."""
    return tensors[0].device.type == "cpu" and not is_transformed(*tensors)


def _differentiable_product(inputs, kernel, gain, bias, one_norm):
    reciprocal, scale = inverse_column_norms(kernel, one_norm)
    return _scaled(torch.mm(inputs, kernel), _times(reciprocal * scale, gain), bias)


def _times(factor, gain):
    return factor if gain is None else factor * gain


def _scaled(product, scale, bias, out=None):
    if bias is None:
        return torch.mul(product, scale, out=out)
    return torch.addcmul(bias, product, scale, out=out)


class _EquilibratedProduct(torch.autograd.Function):
    """The product in as few passes over the kernel as PyTorch's operations allow.

    What costs on a CPU are temporaries as large as a kernel that caches do not hold. Its norms need
    none, and the gradient is accumulated by the matrix product that makes it.
    """

    @staticmethod
    def forward(ctx, inputs, kernel, gain, bias, one_norm):
        inverse, ctx.is_within_range = _inverse_norms(kernel, one_norm)
        ctx.one_norm = one_norm
        product, scale = torch.mm(inputs, kernel), _times(inverse, gain)
        ctx.save_for_backward(inputs, kernel, gain, bias, product, inverse, scale)
        return _scaled(product, scale, bias)

    @staticmethod
    def backward(ctx, upstream):
        inputs, kernel, gain, bias, product, inverse, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # The gradient is to be differentiated in turn.
            function = functools.partial(_differentiable_product, one_norm=ctx.one_norm)
            return *gradients_of(function, (inputs, kernel, gain, bias), upstream), None
        for_inputs, for_kernel, for_gain, for_bias, _ = ctx.needs_input_grad
        scaled = torch.mul(upstream, product)
        along = scaled.sum(0).mul_(inverse)
        torch.mul(upstream, scale, out=scaled)
        gradients = [None] * 5
        if for_inputs:
            gradients[0] = torch.mm(scaled, kernel.t())
        if for_kernel:
            pulled = _times(along, gain)
            if ctx.one_norm:
                pulled = pulled.sum()
            # The negative, since adding a product to a multiple of a matrix costs a pass more.
            factor = (pulled * inverse).neg_()
            if ctx.is_within_range:
                correction = torch.mul(kernel, factor.mul_(inverse))
            else:  # The square of an inverse norm might not be, but these are about 1.
                correction = torch.mul(kernel, inverse).mul_(factor)
            gradients[1] = correction.addmm_(inputs.t(), scaled)
        if for_gain:
            gradients[2] = along if gain.ndim else along.sum()
        if for_bias:
            gradients[3] = upstream.sum(0)
        return tuple(gradients)


class _LargeProduct(torch.autograd.Function):
    """The same where the product is at least as large as the kernel, and its gain is not trained.

    It is scaled in its place, and the gradient in the norms is taken from that in the kernel: a
    pass over these costs less than to keep the product and read it again.
    """

    @staticmethod
    def forward(ctx, inputs, kernel, gain, bias, one_norm):
        inverse, ctx.is_within_range = _inverse_norms(kernel, one_norm)
        ctx.one_norm = one_norm
        product, scale = torch.mm(inputs, kernel), _times(inverse, gain)
        ctx.save_for_backward(inputs, kernel, gain, bias, inverse, scale)
        return _scaled(product, scale, bias, out=product)

    @staticmethod
    def backward(ctx, upstream):
        inputs, kernel, gain, bias, inverse, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # The gradient is to be differentiated in turn.
            function = functools.partial(_differentiable_product, one_norm=ctx.one_norm)
            return *gradients_of(function, (inputs, kernel, gain, bias), upstream), None
        for_inputs, for_kernel, _, for_bias, _ = ctx.needs_input_grad
        gradients = [None] * 5
        scaled = torch.mul(upstream, scale)
        if for_inputs:
            gradients[0] = torch.mm(scaled, kernel.t())
        if for_kernel:
            if not ctx.is_within_range:  # The square of an inverse norm might not be.
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
    """The product of inputs divided by the norms of the kernel's rows, and the kernel.

    The gradient in the norms is taken from that in the kernel, not from that in the inputs, which
    would cost a product where nothing else asks for it.
    """

    @staticmethod
    def forward(ctx, inputs, kernel, inverse):
        scaled = inputs * inverse
        ctx.save_for_backward(inputs, kernel, inverse, scaled)
        return torch.mm(scaled, kernel)

    @staticmethod
    def backward(ctx, upstream):
        inputs, kernel, inverse, scaled = ctx.saved_tensors
        if torch.is_grad_enabled():  # The gradient is to be differentiated in turn.
            return *gradients_of(_product_by_row_norms, (inputs, kernel), upstream), None
        for_inputs, for_kernel, _ = ctx.needs_input_grad
        gradients = [None] * 3
        if for_inputs:
            gradients[0] = torch.mm(upstream, kernel.t()).mul_(inverse)
        if for_kernel:
            gradient = torch.mm(scaled.t(), upstream)
            along = torch.linalg.vecdot(kernel, gradient)
            factor = along.mul_(inverse).mul_(inverse).neg_()
            gradients[1] = gradient.addcmul_(kernel, factor.unsqueeze(1))
        return tuple(gradients)


def _inverse_norms(kernel, one_norm):
    """`1 / ‖kernelⱼ‖`, and whether it is known that all of them have squares within range."""
    if kernels.is_summed_in_float64(kernel) and not one_norm:
        return kernels.wide_inverse_norms(kernel).to(kernel.dtype), False
    if kernel.device.type == "cpu":  # An accelerator would have to be waited for.
        squares = _column_products(kernel, kernel)
        smallest, largest = squares.aminmax()
        if one_norm:
            largest = squares.sum()
        if is_within_range(smallest, largest, *SQUARES_WITHIN_RANGE):
            return (largest.expand_as(squares) if one_norm else squares).rsqrt(), True
    return torch.mul(*inverse_column_norms(kernel, one_norm)), False


def _column_products(first, second):
    """`firstⱼ · secondⱼ` for each column j as it comes, within range or not."""
    if first.numel() <= CACHED:
        return torch.mul(first, second).sum(0)
    # The one operation that multiplies and adds over columns and writes no matrix: the gradient
    # in the scale of batch normalization, where that subtracts 0 and divides by √(0 + 1).
    zeros = first.new_zeros(first.shape[1])
    return torch.ops.aten.native_batch_norm_backward(
        second, first, None, zeros, zeros, None, None, False, 1.0, [False, True, False]
    )[1]
