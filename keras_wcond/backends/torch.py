import contextlib
import functools
import itertools

import keras
import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import CheckpointFunction

from keras_wcond.norms import (
    NORMS_WITHIN_RANGE,
    SMALLEST_NORMAL,
    SQUARES_WITHIN_RANGE,
    inverse_column_norms,
    normalized,
    with_zero_rows_fixed,
)

# A kernel of so many entries and its squares fit into the cache of a core.
CACHED = 2**18
# The devices that `torch.autocast` is commonly switched on for.
AUTOCAST_DEVICES = ("cpu", "cuda", "mps")
# The source files of functions that run what they are given again, for the gradient.
RUN_AGAIN = frozenset({CheckpointFunction.forward.__code__.co_filename})


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


def files_that_run_again():
    # `torch.compile` cannot look at frames.
    return frozenset() if torch.compiler.is_compiling() else RUN_AGAIN


def without_autocast():
    scopes = contextlib.ExitStack()
    for device in AUTOCAST_DEVICES:
        if torch.is_autocast_enabled(device):
            scopes.enter_context(torch.autocast(device, enabled=False))
    return scopes


def is_autocasting(tensor):
    device = getattr(tensor, "device", "cpu")
    return torch.is_autocast_enabled(getattr(device, "type", device))  # NumPy names it.


def parameter_exchanges(layer, variable):
    if not isinstance(layer, keras.layers.TorchModuleWrapper):
        return []
    return [
        functools.partial(_exchange_parameter, module, name)
        for module in layer.module.modules()
        for name, parameter in module._parameters.items()
        if parameter is variable.value
    ]


def _exchange_parameter(module, name, tensor):
    # As `torch.func.functional_call` does, which keeps their order.
    before, module._parameters[name] = module._parameters[name], tensor
    return before


def equilibrated(kernel, units):
    if not _is_transformed(kernel):
        if _is_summed_in_float64(kernel):
            return _EquilibratedOnGPU.apply(kernel, units)
        if kernel.device.type == "cpu":
            return _equilibrated_on_cpu(kernel, units)
    return _differentiable(kernel, units)


def equilibrated_product(inputs, kernel, gain, bias, one_norm):
    if _is_transformed(*(tensor for tensor in (inputs, kernel, gain, bias) if tensor is not None)):
        return _differentiable_product(inputs, kernel, gain, bias, one_norm)
    is_large = len(inputs) >= len(kernel) and kernel.device.type == "cpu"
    has_trained_gain = gain is not None and gain.requires_grad
    function = _LargeProduct if is_large and not has_trained_gain else _EquilibratedProduct
    return function.apply(inputs, kernel, gain, bias, one_norm)


def column_equilibrated_product(inputs, kernel, gain, bias):
    is_read, inverse = _is_read_on_cpu(inputs, kernel), None
    if is_read:
        norms = torch.linalg.vector_norm(kernel.detach(), dim=1)
        if _is_within_range(*norms.aminmax(), *NORMS_WITHIN_RANGE):
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
    return tensors[0].device.type == "cpu" and not _is_transformed(*tensors)


def _is_transformed(*tensors):
    """Whether tensors stand for others: in exports, compilation, `torch.func`, forward mode."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()  # There is no public way to ask.
        or any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)
    )


def _is_summed_in_float64(kernel):
    """Whether norms are: a GPU cannot be asked for their range without waiting for it.

    Squares of float32 are within that of float64, and a reduction reads the one and adds up the
    other.
    """
    return kernel.device.type == "cuda" and kernel.dtype == torch.float32


def _differentiable(kernel, units):
    return normalized(kernel.reshape(-1, units), axis=0).reshape(kernel.shape)


def _differentiable_product(inputs, kernel, gain, bias, one_norm):
    reciprocal, scale = inverse_column_norms(kernel, one_norm)
    return _scaled(torch.mm(inputs, kernel), _times(reciprocal * scale, gain), bias)


def _times(factor, gain):
    return factor if gain is None else factor * gain


def _scaled(product, scale, bias, out=None):
    if bias is None:
        return torch.mul(product, scale, out=out)
    return torch.addcmul(bias, product, scale, out=out)


def _equilibrated_on_cpu(kernel, units):
    """The kernel with unit columns by the functions beneath PyTorch's own weight normalization.

    They make no temporaries, and their gradient takes no Python, which for small kernels is most
    of the time. But they square what is out of range, their second derivative lacks that of the
    norms, and they want contiguous memory without asking for it.
    """
    matrix, axis = _as_read(kernel, units)
    gain = matrix.new_ones([units if each == axis else 1 for each in range(matrix.ndim)])
    conditioned, norms = torch._weight_norm_interface(matrix, gain, axis)
    if not _is_within_range(*norms.detach().aminmax(), *NORMS_WITHIN_RANGE):
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
        return *_gradients(function, (matrix,), upstreams[0]), *gradients[1:]
    return None  # The gradients stay.


class _EquilibratedOnGPU(torch.autograd.Function):
    """The same in few operations, which for most kernels take longer to start than to run."""

    @staticmethod
    def forward(ctx, kernel, units):
        matrix = kernel.reshape(-1, units)
        inverse = _wide_inverse_norms(matrix)
        ctx.save_for_backward(kernel, inverse)
        return _times_wide(matrix, inverse).view(kernel.shape)

    @staticmethod
    def backward(ctx, upstream):
        kernel, inverse = ctx.saved_tensors
        units = inverse.numel()
        if torch.is_grad_enabled():
            function = functools.partial(_differentiable, units=units)
            return *_gradients(function, (kernel,), upstream), None
        upstream = upstream.reshape(-1, units)
        unit = _times_wide(kernel.reshape(-1, units), inverse)
        along = torch.mul(upstream, unit).sum(0)
        across = torch.addcmul(upstream, unit, along, value=-1.0)
        return _times_wide(across, inverse).view(kernel.shape), None


def _wide_inverse_norms(matrix):
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
            return *_gradients(function, (inputs, kernel, gain, bias), upstream), None
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
            return *_gradients(function, (inputs, kernel, gain, bias), upstream), None
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
            return *_gradients(_product_by_row_norms, (inputs, kernel), upstream), None
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


def _gradients(function, arguments, upstream):
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


def _inverse_norms(kernel, one_norm):
    """`1 / ‖kernelⱼ‖`, and whether it is known that all of them have squares within range."""
    if _is_summed_in_float64(kernel) and not one_norm:
        return _wide_inverse_norms(kernel).to(kernel.dtype), False
    if kernel.device.type == "cpu":  # An accelerator would have to be waited for.
        squares = _column_products(kernel, kernel)
        smallest, largest = squares.aminmax()
        if one_norm:
            largest = squares.sum()
        if _is_within_range(smallest, largest, *SQUARES_WITHIN_RANGE):
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


def _is_within_range(smallest, largest, low, high):
    return low < smallest.item() and largest.item() < high
