"""Derivatives and their products with vectors, which Keras has no common way for.

The one module that asks which backend is in force, and the only one that imports one: Keras
offers no gradient outside of `fit()`, let alone one of a gradient.

Functions here take functions of lists of tensors, and return functions of lists of tensors
that may be called again and again; on JAX and TensorFlow these are compiled once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras

Tensors = Sequence[Any]


def gradient(loss: Callable[..., Any]) -> Callable[..., list[Any]]:
    """The gradient of `loss(values, *data)`, a scalar, in `values`: `g(values, *data)`."""
    return _BACKENDS[keras.backend.backend()].gradient(loss)


def hessian_product(loss: Callable[..., Any]) -> Callable[..., list[Any]]:
    """The product `∇²loss · vectors`, as a function of `(values, vectors, *data)`."""
    return _BACKENDS[keras.backend.backend()].hessian_product(loss)


def gauss_newton_product(
    outputs: Callable[..., Any], loss: Callable[..., Any]
) -> Callable[..., list[Any]]:
    """The product `Jᵀ (∇²loss) J · vectors`, as a function of `(values, vectors, *data)`.

    Args:
        outputs: Function of `(values, *data)` with the Jacobian J.
        loss: Function of `(outputs, *data)`.
    """
    return _BACKENDS[keras.backend.backend()].gauss_newton_product(outputs, loss)


class _JAX:
    @staticmethod
    def gradient(loss):
        import jax

        return jax.jit(jax.grad(loss))

    @staticmethod
    def hessian_product(loss):
        import jax

        def product(values, vectors, *data):
            return jax.jvp(lambda w: jax.grad(loss)(w, *data), (values,), (vectors,))[1]

        return jax.jit(product)

    @staticmethod
    def gauss_newton_product(outputs, loss):
        import jax

        def product(values, vectors, *data):
            z, along = jax.jvp(lambda w: outputs(w, *data), (values,), (vectors,))
            curved = jax.jvp(lambda z: jax.grad(loss)(z, *data), (z,), (along,))[1]
            return jax.vjp(lambda w: outputs(w, *data), values)[1](curved)[0]

        return jax.jit(product)


class _TensorFlow:
    @staticmethod
    def gradient(loss):
        import tensorflow as tf

        @tf.function
        def gradient(values, *data):
            with tf.GradientTape() as tape:
                tape.watch(values)
                value = loss(values, *data)
            return tape.gradient(value, values, unconnected_gradients="zero")

        return gradient

    @staticmethod
    def hessian_product(loss):
        import tensorflow as tf

        @tf.function
        def product(values, vectors, *data):
            with tf.GradientTape() as outer:
                outer.watch(values)
                with tf.GradientTape() as inner:
                    inner.watch(values)
                    value = loss(values, *data)
                first = inner.gradient(value, values, unconnected_gradients="zero")
            return outer.gradient(
                first, values, output_gradients=vectors, unconnected_gradients="zero"
            )

        return product

    @staticmethod
    def gauss_newton_product(outputs, loss):
        import tensorflow as tf

        @tf.function
        def product(values, vectors, *data):
            with tf.GradientTape() as backward:
                backward.watch(values)
                with tf.GradientTape() as outer:
                    with tf.GradientTape() as inner:
                        inner.watch(values)
                        z = outputs(values, *data)
                    # Jᵀu is linear in u: the derivative in u, along the vectors, is J · vectors.
                    u = tf.zeros_like(z)
                    outer.watch(u)
                    pulled = inner.gradient(
                        z, values, output_gradients=u, unconnected_gradients="zero"
                    )
                along = outer.gradient(pulled, u, output_gradients=vectors)
            with tf.GradientTape() as outer:
                outer.watch(z)
                with tf.GradientTape() as inner:
                    inner.watch(z)
                    value = loss(z, *data)
                first = inner.gradient(value, z)
            curved = outer.gradient(first, z, output_gradients=along, unconnected_gradients="zero")
            return backward.gradient(
                z, values, output_gradients=curved, unconnected_gradients="zero"
            )

        return product


class _Torch:
    @staticmethod
    def gradient(loss):
        import torch

        def gradient(values, *data):
            values = _leaves(values)
            return _grad(torch, loss(values, *data), values)

        return gradient

    @staticmethod
    def hessian_product(loss):
        import torch

        def product(values, vectors, *data):
            values = _leaves(values)
            first = _grad(torch, loss(values, *data), values, create_graph=True)
            return _grad(torch, first, values, vectors)

        return product

    @staticmethod
    def gauss_newton_product(outputs, loss):
        import torch

        def product(values, vectors, *data):
            values = _leaves(values)
            z = outputs(values, *data)
            # Jᵀu is linear in u: the derivative in u, along the vectors, is J · vectors.
            u = torch.zeros_like(z, requires_grad=True)
            pulled = _grad(torch, z, values, u, create_graph=True)
            (along,) = _grad(torch, pulled, [u], vectors)
            (at,) = _leaves([z])
            (first,) = _grad(torch, loss(at, *data), [at], create_graph=True)
            (curved,) = _grad(torch, first, [at], along)
            return _grad(torch, z, values, curved)

        return product


def _leaves(tensors):
    return [tensor.detach().requires_grad_(True) for tensor in tensors]


def _grad(torch, outputs, inputs, vectors=None, create_graph=False):
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


_BACKENDS: dict[str, Any] = {"jax": _JAX, "tensorflow": _TensorFlow, "torch": _Torch}
