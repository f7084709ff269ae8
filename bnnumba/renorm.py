"""Batch renormalization (Ioffe 2017), as Keras has it: what a training layer changes when it is asked to renormalize.

    y = gamma * (x_hat*r + d) + beta
    stddev = sqrt(var + epsilon)    renorm_stddev >= sqrt(epsilon)
    r = stddev/renorm_stddev, clipped to [rmin, rmax]
    d = (mean - renorm_mean)/renorm_stddev, clipped to [-dmax, dmax]

r and d are constants to `backward`. All arrays here have the feature shape.
"""

from typing import NamedTuple

import numpy as np

from bnnumba import checks
from bnnumba._types import Array
from bnnumba.functional import moved
from bnnumba.outputs import Change, filling
from bnnumba.pooling import Moments


class Clipping(NamedTuple):
    """The bounds of r and d; the defaults bound nothing."""

    rmin: float = 0.0
    rmax: float = np.inf
    dmax: float = np.inf


class Statistics(NamedTuple):
    """The moving statistics of a layer that renormalizes, in the order of Keras's weights."""

    moving_mean: Array
    moving_variance: Array
    moving_stddev: Array
    renorm_mean: Array
    renorm_stddev: Array


class Correction(NamedTuple):
    """r and d."""

    r: Array
    d: Array

    def parameters(self, gamma: Array | None, beta: Array | None) -> tuple[Array, Array]:
        """What gamma and beta become: y = (r*gamma)*x_hat + (d*gamma + beta)."""
        scale, offset = (self.r, self.d) if gamma is None else (self.r * gamma, self.d * gamma)
        return scale, offset if beta is None else offset + beta

    def dgamma(self, dgamma: Array, dbeta: Array) -> Array:
        """The gradient of gamma, from those of what gamma and beta became."""
        result: Array = self.r * dgamma + self.d * dbeta
        return result


def correction_of(moments: Moments, statistics: Statistics, epsilon: float, clipping: Clipping) -> Correction:
    """Compute r and d of a batch; where the renorm_stddev and epsilon are 0, or count is, r is 1 and d is 0."""
    spread = np.maximum(statistics.renorm_stddev, np.sqrt(epsilon))
    there = (spread > 0) & (moments.count > 0)
    r = np.divide(np.sqrt(moments.var + epsilon), spread, out=np.ones(spread.shape), where=there)
    d = np.divide(moments.mean - statistics.renorm_mean, spread, out=np.zeros(spread.shape), where=there)
    return Correction(np.clip(r, clipping.rmin, clipping.rmax), np.clip(d, -clipping.dmax, clipping.dmax))


def moved_statistics(
    statistics: Statistics,
    moments: Moments,
    epsilon: float,
    momentum: float,
    renorm_momentum: float,
    skip_nonfinite: bool,
) -> list[Change]:
    """What moves the statistics towards a batch's; a batch of no elements leaves them.

    moving = m*moving + (1 - m)*batch, with momentum for moving_mean and moving_stddev, with renorm_momentum for the
    others; moving_variance = max(moving_stddev**2 - epsilon, 0).
    """
    counts = np.greater(moments.count, 0)
    if not counts.any():
        return []
    batch = moments._replace(var=np.asarray(np.sqrt(moments.var + epsilon)))  # each mean is moved with a deviation
    moving = moved(statistics.moving_mean, statistics.moving_stddev, batch, momentum, 0, skip_nonfinite)
    renorm = moved(statistics.renorm_mean, statistics.renorm_stddev, batch, renorm_momentum, 0, skip_nonfinite)
    kept = np.isfinite(batch.mean) & np.isfinite(batch.var) if skip_nonfinite else np.True_
    *_, stddev = moving[1]
    variance = np.where(kept & counts, np.maximum(stddev**2 - epsilon, 0.0), statistics.moving_variance)
    return [*moving, *renorm, filling(statistics.moving_variance, variance)]


def clipping(value: object) -> Clipping:
    """The bounds in a dict that may leave some out."""
    if not isinstance(value, dict | None):
        raise TypeError(f"renorm_clipping must be a dict or None, got {checks.described(value)}")
    names, got = Clipping._fields, checks.shown(value)
    if not set(value or {}) <= set(names):
        raise ValueError(f"renorm_clipping must have no other keys than {', '.join(names)}, got {got}")
    given = {name: bound for name, bound in (value or {}).items() if bound is not None}
    bounds = Clipping(**{name: checks.real(f"renorm_clipping's {name}", bound) for name, bound in given.items()})
    if not (0 <= bounds.rmin <= bounds.rmax and bounds.dmax >= 0):
        raise ValueError(f"renorm_clipping must have 0 <= rmin <= rmax and dmax >= 0, got {got}")
    return bounds
