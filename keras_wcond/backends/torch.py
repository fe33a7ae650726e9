import torch
from torch.autograd import forward_ad

from keras_wcond.norms import SQUARES_WITHIN_RANGE, inverse_norms


def gradient(loss):
    def gradient(values, *data):
        values = _leaves(values)
        return _grad(loss(values, *data), values)

    return gradient


def hessian_product(loss):
    def product(values, vectors, *data):
        values = _leaves(values)
        first = _grad(loss(values, *data), values, create_graph=True)
        return _grad(first, values, vectors)

    return product


def gauss_newton_product(outputs, loss):
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


def equilibrated_product(inputs, kernel, gain):
    arguments = (inputs, kernel, gain)
    if _is_transformed(arguments):
        return _differentiable_product(*arguments)
    return _EquilibratedProduct.apply(*arguments)


def _is_transformed(tensors):
    """Whether tensors stand for others: in exports, compilation, `torch.func`, forward mode."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()  # There is no public way to ask.
        or any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)
    )


def _differentiable_product(inputs, kernel, gain):
    return torch.mm(inputs, kernel) * (inverse_norms(kernel, axis=0) * gain)


class _EquilibratedProduct(torch.autograd.Function):
    """The product in as few passes over the kernel as PyTorch's operations allow.

    What costs on a CPU are temporaries as large as the kernel. The norms need none, and the
    gradient is accumulated by the matrix product that makes it.
    """

    @staticmethod
    def forward(ctx, inputs, kernel, gain):
        inverse, ctx.is_within_range = _inverse_column_norms(kernel)
        product = torch.mm(inputs, kernel)
        ctx.save_for_backward(inputs, kernel, gain, product, inverse)
        return product * (inverse * gain)

    @staticmethod
    def backward(ctx, upstream):
        inputs, kernel, gain, product, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # The gradient is to be differentiated in turn.
            return _differentiable_gradients((inputs, kernel, gain), upstream)
        for_inputs, for_kernel, for_gain = ctx.needs_input_grad
        scaled = upstream * (inverse * gain)
        along = (upstream * product).sum(0).mul_(inverse)
        gradients = [None, None, None]
        if for_inputs:
            gradients[0] = torch.mm(scaled, kernel.t())
        if for_kernel:
            factor = (along * gain).mul_(inverse).neg_()
            if ctx.is_within_range:
                correction = torch.mul(kernel, factor.mul_(inverse))
            else:  # The square of an inverse norm might not be, but these are about 1.
                correction = torch.mul(kernel, inverse).mul_(factor)
            gradients[1] = correction.addmm_(inputs.t(), scaled)
        if for_gain:
            gradients[2] = along if gain.ndim else along.sum()
        return tuple(gradients)


def _differentiable_gradients(arguments, upstream):
    outputs = _differentiable_product(*arguments)
    sought = [tensor for tensor in arguments if tensor.requires_grad]
    found = iter(torch.autograd.grad(outputs, sought, upstream, create_graph=True))
    return tuple(next(found) if tensor.requires_grad else None for tensor in arguments)


def _inverse_column_norms(kernel):
    """`1 / ‖kernelⱼ‖`, and whether it is known that all of them have squares within range."""
    if kernel.device.type == "cpu":  # An accelerator would have to be waited for.
        # The one operation that reads a matrix once for sums over its columns, and writes none.
        mean, variance = torch.batch_norm_update_stats(kernel, None, None, 0.0)
        squares = mean.square_().add_(variance).mul_(kernel.shape[0])
        smallest, largest = squares.aminmax()
        low, high = SQUARES_WITHIN_RANGE
        if low < smallest and largest < high:
            return squares.rsqrt_(), True
    return inverse_norms(kernel, axis=0), False
