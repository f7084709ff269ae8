"""The backward passes as JAX's own operations, from which derivatives of any further order come.

Of data in float32, or float64; half precision is taken as float32. Data is (outer, feature, inner), others are
(feature,). Where var + epsilon is 0, rstd is taken as 0.
"""

import jax
import jax.numpy as jnp

Array = jax.Array
REDUCED = (0, 2)


def training_gradients(dy: Array, x: Array, gamma: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """Return dx, dgamma and dbeta of the training forward, whose mean and var depend on x."""
    mean = jnp.mean(x, REDUCED, keepdims=True)
    centred = x - mean
    centred = centred - jnp.mean(centred, REDUCED, keepdims=True)  # of what rounding took from the mean
    rstd = reciprocal_std(jnp.mean(centred**2, REDUCED, keepdims=True), epsilon)
    x_hat, count = centred * rstd, max(x.shape[0] * x.shape[2], 1)
    dbeta, dgamma = jnp.sum(dy, REDUCED, keepdims=True), jnp.sum(dy * x_hat, REDUCED, keepdims=True)
    dx = gamma[:, None] * rstd * (dy - (dbeta + x_hat * dgamma) / count)
    return dx, dgamma[0, :, 0], dbeta[0, :, 0]


def frozen_gradients(
    dy: Array, x: Array, mean: Array, var: Array, gamma: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Return dx, dgamma and dbeta of the forward by a given mean and var."""
    rstd = reciprocal_std(var, epsilon)[:, None]
    x_hat = (x - mean[:, None]) * rstd
    return gamma[:, None] * rstd * dy, jnp.sum(dy * x_hat, REDUCED), jnp.sum(dy, REDUCED)


def reciprocal_std(var: Array, epsilon: float) -> Array:
    """Return 1/sqrt(var + epsilon), or 0 where that is 1/0."""
    spread = var + epsilon
    return jnp.where(spread == 0, 0, jax.lax.rsqrt(jnp.where(spread == 0, 1, spread)))


def std(var: Array) -> Array:
    """Return sqrt(var), whose derivative is taken as 0 where var is 0."""
    return jnp.where(var == 0, 0, jnp.sqrt(jnp.where(var == 0, 1, var)))
