import jax
import keras
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


def equilibrated(kernel, units):
    matrix = jnp.reshape(kernel, (-1, units))
    reciprocal, scale = _inverse_column_norms(matrix)
    return jnp.reshape(matrix * scale * reciprocal, kernel.shape)


def equilibrated_product(inputs, kernel, gain, bias):
    reciprocal, scale = _inverse_column_norms(kernel)
    # The compiler writes no scaled product: it scales where the bias is added.
    product = (inputs @ kernel) * (reciprocal * scale * gain)
    return product if bias is None else product + bias


# Not `jax.custom_gradient`, whose functions have no derivative in forward mode.
@jax.custom_jvp
def _inverse_column_norms(kernel):
    """Two factors of the inverse norms, as `inverse_norms` has them."""
    if jax.default_backend() != "cpu" or keras.distribution.distribution() is not None:
        # An accelerator reads once more sooner than it asks the host where to go on, and devices
        # with a part each would have to tell one another.
        return inverse_norms(kernel, axis=0)
    return _look(kernel)


@jax.jit  # As one program outside of a compiled function, too.
def _look(kernel):
    squares = jnp.sum(jnp.square(kernel), axis=0)
    low, high = SQUARES_WITHIN_RANGE
    return jax.lax.cond(
        jnp.all((squares > low) & (squares < high)),
        lambda: (jax.lax.rsqrt(squares), jnp.ones_like(squares)),
        lambda: inverse_norms(kernel, axis=0),
    )


@_inverse_column_norms.defjvp
def _derivative(primals, tangents):
    (kernel,), (tangent,) = primals, tangents
    reciprocal, scale = _inverse_column_norms(kernel)
    # Factors of about 1 each, since the cube of an inverse norm is soon out of range.
    unit, relative = kernel * scale * reciprocal, tangent * scale * reciprocal
    along = -reciprocal * jnp.sum(unit * relative, axis=0)
    return (reciprocal, scale), (along, jnp.zeros_like(scale))
