import jax
from jax import numpy as jnp

from keras_wcond.norms import SQUARES_WITHIN_RANGE, inverse_norms


def gradient(loss):
    return jax.jit(jax.grad(loss))


def hessian_product(loss):
    def product(values, vectors, *data):
        return jax.jvp(lambda w: jax.grad(loss)(w, *data), (values,), (vectors,))[1]

    return jax.jit(product)


def gauss_newton_product(outputs, loss):
    def product(values, vectors, *data):
        z, along = jax.jvp(lambda w: outputs(w, *data), (values,), (vectors,))
        curved = jax.jvp(lambda z: jax.grad(loss)(z, *data), (z,), (along,))[1]
        return jax.vjp(lambda w: outputs(w, *data), values)[1](curved)[0]

    return jax.jit(product)


def equilibrated_product(inputs, kernel, gain):
    # The compiler writes no scaled product: it scales where the bias is added.
    return (inputs @ kernel) * (_inverse_column_norms(kernel) * gain)


# Not `jax.custom_gradient`, whose functions have no derivative in forward mode.
@jax.custom_jvp
def _inverse_column_norms(kernel):
    if jax.default_backend() != "cpu":
        # An accelerator reads once more sooner than it asks the host where to go on.
        return inverse_norms(kernel, axis=0)
    squares = jnp.sum(jnp.square(kernel), axis=0)
    low, high = SQUARES_WITHIN_RANGE
    return jax.lax.cond(
        jnp.all((squares > low) & (squares < high)),
        lambda: jax.lax.rsqrt(squares),
        lambda: inverse_norms(kernel, axis=0),
    )


@_inverse_column_norms.defjvp
def _derivative(primals, tangents):
    (kernel,), (tangent,) = primals, tangents
    inverse = _inverse_column_norms(kernel)
    # Factors of about 1 each, since the cube of an inverse norm is soon out of range.
    return inverse, -inverse * jnp.sum((kernel * inverse) * (tangent * inverse), axis=0)
