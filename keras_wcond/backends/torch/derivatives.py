"""Derivatives of functions of lists of tensors."""

import itertools

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

# The fused kernels of attention have no second derivative.
_by_differentiable_attention = sdpa_kernel(SDPBackend.MATH)


def gradient(loss):
    def gradient(values, *data):
        values = _leaves(values)
        return _grad(loss(values, *data), values)

    return gradient


def hessian_product(loss):
    @_by_differentiable_attention
    def product(values, vectors, *data):
        values = _leaves(values)
        first = _grad(loss(values, *data), values, create_graph=True)
        return _grad(first, values, vectors)

    return product


def gauss_newton_product(outputs, loss):
    @_by_differentiable_attention
    def product(values, vectors, *data):
        values = _leaves(values)
        z = outputs(values, *data)
        # Jᵀu is linear in u: the derivative in u, along the vectors, is J · vectors.
        u = torch.zeros_like(z, requires_grad=True)
        pulled = _grad(z, values, u, create_graph=True)
        (along,) = _grad(pulled, [u], vectors)
        (at,) = _leaves([z])
        (first,) = _grad(loss(at, *data), [at], create_graph=True)
        (curved,) = _grad(first, [at], along)
        return _grad(z, values, curved)

    return product


def _leaves(tensors):
    return [tensor.detach().requires_grad_(True) for tensor in tensors]


def _grad(outputs, inputs, vectors=None, create_graph=False):
    """`torch.autograd.grad`, with zeros where there is no dependence."""
    pairs = zip(
        outputs if isinstance(outputs, (list, tuple)) else [outputs],
        vectors if isinstance(vectors, (list, tuple)) else [vectors],
        strict=True,
    )
    differentiable = [(output, vector) for output, vector in pairs if output.requires_grad]
    if not differentiable:
        return [torch.zeros_like(tensor) for tensor in inputs]
    found = torch.autograd.grad(
        [output for output, _ in differentiable],
        inputs,
        [vector for _, vector in differentiable],
        create_graph=create_graph,
        retain_graph=True,
        allow_unused=True,
    )
    return [
        torch.zeros_like(tensor) if value is None else value
        for tensor, value in zip(inputs, found, strict=True)
    ]


def gradients_of(function, arguments, upstream):
    """The gradients of a function by its own operations, differentiable if they are to be."""
    is_to_be_differentiated = torch.is_grad_enabled()
    with torch.enable_grad():
        if not is_to_be_differentiated:
            arguments = [tensor.detach().requires_grad_(True) for tensor in arguments]
        is_sought = [tensor is not None and tensor.requires_grad for tensor in arguments]
        found = iter(
            torch.autograd.grad(
                function(*arguments),
                list(itertools.compress(arguments, is_sought)),
                upstream,
                create_graph=is_to_be_differentiated,
            )
        )
    return tuple(next(found) if sought else None for sought in is_sought)
