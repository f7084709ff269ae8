"""Batch normalization that JAX can differentiate in reverse, as often as one likes. Arrays are as `calls` says.

The first derivatives come from the kernels, all further ones from `formulas`. What runs forward for a derivative is the
differentiable function itself, so that it may be differentiated again.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from bnnumba.jax import calls, formulas
from bnnumba.jax.calls import Options

Array = jax.Array

# ---- the forward passes


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def batch_norm(
    options: Options, x: Array, gamma: Array, beta: Array, residual: Array | None
) -> tuple[Array, Array, Array, Array]:
    """Return y, mean, var, and rows for the backward pass."""
    y, rows, mean, var = calls.forward(options, x, gamma, beta, residual)
    return y, mean, var, rows


def _batch_norm_forward(options: Options, *inputs: Any) -> tuple[Any, Any]:
    x, gamma, beta, residual = _values(inputs)
    y, _, var, rows = outputs = batch_norm(options, x, gamma, beta, residual)
    return outputs, (x, gamma, beta, var, rows, y if calls.takes_y("backward", options, x) else None)


def _batch_norm_backward(options: Options, kept: Any, cotangents: Any) -> tuple[Any, ...]:
    x, gamma, beta, var, rows, y = kept
    dy, dmean, dvar, _ = cotangents
    dx, dgamma, dbeta, dresidual = training_backward(options, _dense(dy), x, gamma, beta, rows, y)
    if not (_is_zero(dmean) and _is_zero(dvar)):
        dx = _add_through_moments(_dense(dmean), _dense(dvar), x, var, dx)
    return dx, dgamma, dbeta, dresidual


def _add_through_moments(dmean: Array, dvar: Array, x: Array, var: Array, dx: Array) -> Array:
    """Return dx + dmean/count + dvar * 2*(x - mean)/count, in one more forward pass over x."""
    count = max(x.shape[0] * x.shape[2], 1)
    options = Options(0.0, "", residual=True)
    return batch_norm(options, x, 2 * dvar * formulas.std(var) / count, dmean / count, dx)[0]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def normalize(options: Options, x: Array, features: tuple[Array, ...], residual: Array | None) -> tuple[Array, Array]:
    """Return y, and rows for the backward pass. features: mean, var, gamma, beta."""
    y, rows = calls.inference(options, x, features, residual)
    return y, rows


def _normalize_forward(options: Options, *inputs: Any) -> tuple[Any, Any]:
    x, features, residual = _values(inputs)
    y, rows = outputs = normalize(options, x, features, residual)
    return outputs, (x, features, rows, y if calls.takes_y("frozen", options, x) else None)


def _normalize_backward(options: Options, kept: Any, cotangents: Any) -> tuple[Any, ...]:
    x, features, rows, y = kept
    _, var, gamma, _ = features
    dx, dgamma, dbeta, dresidual = frozen_backward(options, _dense(cotangents[0]), x, features, rows, y)
    rstd = formulas.reciprocal_std(var, options.epsilon)
    dmean, dvar = -gamma * rstd * dbeta, -gamma * rstd**2 * dgamma / 2
    return dx, (dmean, dvar, dgamma, dbeta), dresidual


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward, symbolic_zeros=True)
normalize.defvjp(_normalize_forward, _normalize_backward, symbolic_zeros=True)


# ---- the backward passes: dx, dgamma, dbeta, and dresidual, or None without a residual


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def training_backward(
    options: Options, dy: Array, x: Array, gamma: Array, beta: Array, rows: Array, y: Array | None
) -> tuple[Array, Array, Array, Array | None]:
    """Return the gradients of `batch_norm`'s y. gamma and beta, which rows hold, are there to be differentiated."""
    return _gradients(options, dy, calls.backward("backward", options, dy, x, rows, y))


def _training_backward_forward(options: Options, *inputs: Any) -> tuple[Any, Any]:
    dy, x, gamma, beta, _, y = inputs
    return training_backward(options, *inputs), (dy, x, gamma, beta, y)


def _training_backward_backward(options: Options, kept: Any, cotangents: Any) -> tuple[Any, ...]:
    dy, x, gamma, beta, y = kept
    if y is None and options.activation:
        y = batch_norm(options, x, gamma, beta, None)[0]

    def again(dy: Array, x: Array, gamma: Array) -> Any:
        dresidual = behind(options, dy, y)
        dx, *sums = formulas.training_gradients(_wide(dresidual), _wide(x), gamma, options.epsilon)
        return dx.astype(x.dtype), *_like(gamma, sums), dresidual if options.residual else None

    return *_pulled_back(again, (dy, x, gamma), cotangents), None, None, None


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def frozen_backward(
    options: Options, dy: Array, x: Array, features: tuple[Array, ...], rows: Array, y: Array | None
) -> tuple[Array, Array, Array, Array | None]:
    """Return the gradients of `normalize`. features, which rows hold, are there to be differentiated."""
    return _gradients(options, dy, calls.backward("frozen", options, dy, x, rows, y))


def _frozen_backward_forward(options: Options, *inputs: Any) -> tuple[Any, Any]:
    dy, x, features, _, y = inputs
    return frozen_backward(options, *inputs), (dy, x, features, y)


def _frozen_backward_backward(options: Options, kept: Any, cotangents: Any) -> tuple[Any, ...]:
    dy, x, features, y = kept

    def again(dy: Array, x: Array, features: tuple[Array, ...]) -> Any:
        mean, var, gamma, _ = features
        dresidual = behind(options, dy, y)
        dx, *sums = formulas.frozen_gradients(_wide(dresidual), _wide(x), mean, var, gamma, options.epsilon)
        return dx.astype(x.dtype), *_like(gamma, sums), dresidual if options.residual else None

    return *_pulled_back(again, (dy, x, features), cotangents), None, None


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def behind(options: Options, dy: Array, y: Array | None) -> Array:
    """Return dy behind the activation that gave y, whose slopes are constants; dy itself without an activation."""
    return dy if y is None else calls.behind(options, dy, y)


def _behind_forward(options: Options, dy: Array, y: Array | None) -> tuple[Array, Any]:
    return behind(options, dy, y), y


def _behind_backward(options: Options, y: Array | None, cotangent: Array) -> tuple[Array, None]:
    return behind(options, cotangent, y), None


training_backward.defvjp(_training_backward_forward, _training_backward_backward)
frozen_backward.defvjp(_frozen_backward_forward, _frozen_backward_backward)
behind.defvjp(_behind_forward, _behind_backward)


def _gradients(options: Options, dy: Array, found: tuple[Array, ...]) -> tuple[Array, Array, Array, Array | None]:
    dx, _, dgamma, dbeta, *masked = found
    return dx, dgamma, dbeta, (masked[0] if masked else dy) if options.residual else None


def _pulled_back(function: Any, inputs: Any, cotangents: Any) -> Any:
    _, pull = jax.vjp(function, *inputs)
    return pull(cotangents)


def _values(inputs: Any) -> Any:
    """The values of what JAX marks as differentiated or not."""
    return jax.tree.map(lambda each: each.value, inputs, is_leaf=lambda each: hasattr(each, "perturbed"))


def _is_zero(cotangent: Any) -> bool:
    return isinstance(cotangent, SymbolicZero)


def _dense(cotangent: Any) -> Array:
    return jnp.zeros(cotangent.shape, cotangent.dtype) if _is_zero(cotangent) else cotangent


def _wide(array: Array) -> Array:
    return array.astype(jnp.promote_types(array.dtype, np.float32))


def _like(gamma: Array, sums: list[Array]) -> list[Array]:
    return [each.astype(gamma.dtype) for each in sums]
