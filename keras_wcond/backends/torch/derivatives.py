"""Derivatives of functions of lists of tensors."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

# Functions of `(values, *data)`, where `values` is a list of tensors.
Function: TypeAlias = Callable[..., torch.Tensor]
Derivative: TypeAlias = Callable[..., Sequence[torch.Tensor]]

# The fused kernels of attention have no second derivative.
_by_differentiable_attention: Callable[[Derivative], Derivative] = sdpa_kernel(SDPBackend.MATH)


def gradient(loss: Function) -> Derivative:
    def gradient(values: Sequence[torch.Tensor], *data: Any) -> list[torch.Tensor]:
        values = _leaves(values)
        return _grad(loss(values, *data), values)

    return gradient


def hessian_product(loss: Function) -> Derivative:
    def product(
        values: Sequence[torch.Tensor], vectors: Sequence[torch.Tensor], *data: Any
    ) -> list[torch.Tensor]:
        values = _leaves(values)
        first = _grad(loss(values, *data), values, create_graph=True)
        return _grad(first, values, vectors)

    return _by_differentiable_attention(product)


def gauss_newton_product(outputs: Function, loss: Function) -> Derivative:
    def product(
        values: Sequence[torch.Tensor], vectors: Sequence[torch.Tensor], *data: Any
    ) -> list[torch.Tensor]:
        values = _leaves(values)
        z = outputs(values, *data)
        # Jᵀu is linear in u, and its derivative in u along the vectors is J · vectors.
        u = torch.zeros_like(z, requires_grad=True)
        pulled = _grad(z, values, u, create_graph=True)
        (along,) = _grad(pulled, [u], vectors)
        (at,) = _leaves([z])
        (first,) = _grad(loss(at, *data), [at], create_graph=True)
        (curved,) = _grad(first, [at], along)
        return _grad(z, values, curved)

    return _by_differentiable_attention(product)


def _leaves(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor.detach().requires_grad_(True) for tensor in tensors]


def _grad(
    outputs: torch.Tensor | Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
    vectors: torch.Tensor | Sequence[torch.Tensor] | None = None,
    create_graph: bool = False,
) -> list[torch.Tensor]:
    """`torch.autograd.grad` with zeros for inputs on which the outputs do not depend."""
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


def gradients_of(
    function: Callable[..., torch.Tensor],
    arguments: Sequence[torch.Tensor | None],
    upstream: torch.Tensor,
) -> tuple[torch.Tensor | None, ...]:
    """The gradients by automatic differentiation, differentiable if gradients are enabled.

    Args:
        function: Function of tensors that returns a tensor.
        arguments: The function's arguments, tensors or None.
        upstream: The gradient in the function's result.

    Returns:
        The gradient in each argument, or None for an argument without one.
    """
    is_to_be_differentiated = torch.is_grad_enabled()
    with torch.enable_grad():
        if not is_to_be_differentiated:
            arguments = [
                None if tensor is None else tensor.detach().requires_grad_(True)
                for tensor in arguments
            ]
        sought = [tensor for tensor in arguments if tensor is not None and tensor.requires_grad]
        found = iter(
            torch.autograd.grad(
                function(*arguments),
                sought,
                upstream,
                create_graph=is_to_be_differentiated,
            )
        )
    return tuple(
        next(found) if tensor is not None and tensor.requires_grad else None for tensor in arguments
    )
