"""BatchNormalization: state and modes. The arithmetic is in `functional`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from bnnumba import activations, axes, building, checks, direct
from bnnumba._types import Array, Mask, SampleWeight
from bnnumba.activations import Activation, text_of
from bnnumba.building import Initializer
from bnnumba.exchange import Exchanged
from bnnumba.functional import Gradients, batch_norm, batch_norm_backward, moments, moved, normalize
from bnnumba.outputs import Change, filling, moving, write
from bnnumba.pooling import Moments
from bnnumba.renorm import Correction, Statistics, clipping, correction_of, moved_statistics
from bnnumba.state import NONE_YET
from bnnumba.storage import Stored
from bnnumba.streaming import Reading, pooled_moments, settled
from bnnumba.weighted import counted, layer_weights


class Saved(NamedTuple):
    """What backward needs of the training call before it."""

    x: Array
    statistics: Moments  # of the batch; or frozen, the moving ones, which have no count
    frozen: bool
    y: Array | None  # where there is an activation
    residual: bool
    weights: dict[str, Any]
    correction: Correction | None = None


class BatchNormalization(Exchanged, Stored):
    """Batch normalization in Keras 3's terms, for NumPy arrays.

        training:  y = act(gamma * (x - mean)/sqrt(var + epsilon) + beta + residual)
                   with the batch's mean and population variance
                   moving = momentum*moving + (1 - momentum)*batch
        inference: y = act(gamma * (x - moving_mean)/sqrt(moving_variance + epsilon) + beta + residual)

    Parameters
    ----------
    axis : int or tuple of ints
        The feature axes, which are kept; Keras's meaning.
    momentum : real number in [0, 1], or None
        None: the moving statistics are the average over all batches seen, as in PyTorch: momentum = 1 - 1/batches_seen.
        Features that `skip_nonfinite` leaves keep their average, as if the batch had the same.
    epsilon : real number >= 0
    center, scale : bool
        Whether there is a beta, a gamma.
    beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer
        "zeros", "ones", a number, an array of the feature shape, or a callable of the feature shape.
    ddof : 0 or 1
        Of the variance that goes into the moving one: 0 as in Keras, 1 as in PyTorch.
    dtype : float32 or float64
        Of gamma and beta. y always has x's dtype.
    skip_nonfinite : bool
        Whether moving statistics stay as they are for features whose batch mean or variance is NaN or infinite. False
        lets these in, as in Keras.
    activation : None, a name or an instance of `bnnumba.activations`
        What stands behind the normalization.
    renorm : bool
        Whether to train by batch renormalization, see `bnnumba.renorm`; ddof is then 0.
    renorm_clipping : dict, optional
        Of the bounds "rmin", "rmax" and "dmax"; those left out, or None, do not bound.
    renorm_momentum : real number in [0, 1]
        Of the averages that training normalizes by, `renorm_mean` and `renorm_stddev`.

    Attributes
    ----------
    gamma, beta : arrays of the feature shape, of `dtype`; None before the layer is built, or without scale, center
        All these are typed as arrays, so that a training loop needs no check for None.
    moving_mean, moving_variance : arrays of the feature shape, float64; None before the layer is built
    moving_stddev, renorm_mean, renorm_stddev : likewise; None without renorm
    dgamma, dbeta : arrays of the feature shape, float64, of the last `backward`; None before, or without scale, center
    batches_seen : int
        How many batches have moved the moving statistics; those without a value do not count.
    trainable : bool
        False freezes the layer, as in Keras: it normalizes by the moving statistics and leaves them, whatever
        `training` says. `backward` is then the gradient of that, dgamma and dbeta included.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """

    def __init__(
        self,
        axis: int | tuple[int, ...] = -1,
        momentum: float | None = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Initializer = "zeros",
        gamma_initializer: Initializer = "ones",
        moving_mean_initializer: Initializer = "zeros",
        moving_variance_initializer: Initializer = "ones",
        *,
        ddof: int = 0,
        dtype: Any = "float32",
        skip_nonfinite: bool = False,
        activation: Activation | None = None,
        renorm: bool = False,
        renorm_clipping: dict[str, float | None] | None = None,
        renorm_momentum: float = 0.99,
    ) -> None:
        self.axis = checks.axis("axis", axis)
        self.momentum = None if momentum is None else checks.momentum(momentum)
        self.epsilon = checks.epsilon(epsilon)
        self.center = checks.flag("center", center)
        self.scale = checks.flag("scale", scale)
        start = building.initializer
        self.beta_initializer = start("beta_initializer", beta_initializer)
        self.gamma_initializer = start("gamma_initializer", gamma_initializer)
        self.moving_mean_initializer = start("moving_mean_initializer", moving_mean_initializer)
        self.moving_variance_initializer = start("moving_variance_initializer", moving_variance_initializer)
        self.ddof = checks.ddof(ddof)
        self.dtype = building.dtype(dtype)
        self.skip_nonfinite = checks.flag("skip_nonfinite", skip_nonfinite)
        self.activation = activations.public(activation)
        self.renorm = checks.flag("renorm", renorm)
        if self.renorm and self.ddof:  # Keras defines no other variance for it than the population's
            raise ValueError(f"ddof must be 0 with renorm, got {ddof}")
        self._clipping = clipping(renorm_clipping)
        self.renorm_clipping = None if renorm_clipping is None else dict(renorm_clipping)
        self.renorm_momentum = checks.momentum(renorm_momentum, "renorm_momentum")
        self.trainable, self.batches_seen, self._feature_shape = True, 0, None
        self.dgamma: Array = NONE_YET
        self.dbeta: Array = NONE_YET
        self._saved: Saved | None = None

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make gamma, beta and the moving statistics for inputs of this shape; unknown reduced sizes may be None.

        Raises
        ------
        TypeError, ValueError
            If the shape has not the feature axes, or the layer was built for another feature shape.
        """
        self._build(building.feature_shape(input_shape, self.axis))

    def __call__(
        self,
        x: Array,
        training: bool = False,
        *,
        residual: Array | None = None,
        mask: Mask | None = None,
        sample_weight: SampleWeight | None = None,
    ) -> Array:
        """Normalize x, by its own moments when training and by the moving statistics otherwise.

        Parameters
        ----------
        x : array, at least 1-D, float32, float64, float16 or bfloat16, any strides
        training : bool
            True also moves the moving statistics, and keeps a reference to x (not a copy) for one `backward`; with an
            activation, to y too; and to a mask or weights. False keeps nothing: threads may share the layer.
        residual : array of x's shape and dtype, in any memory order, or None for 0
        mask, sample_weight
            As for `moments`, with x's number of axes; or as in Keras, of x's shape without the last. They change the
            batch's moments only. Where all is masked, y is act(beta + residual), and the moving statistics stay.

        Returns
        -------
        array
            y, of x's shape, dtype and memory order.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above, or x's feature shape is not the one that the layer was built for.
        """
        if residual is None and mask is None and sample_weight is None:
            y = direct.inference(self, x) if training is False else self._trained_directly(x, training)
            if y is not None:
                return y
        training = checks.flag("training", training)
        x = checks.data("x", x)
        view = axes.canonical_view(x, self.axis, "axis")
        weights: dict[str, Any] = {}
        if mask is not None or sample_weight is not None:
            weights = layer_weights(x, mask, sample_weight, self.ddof)
        self._build(view.feature_shape)
        if training and self.trainable:
            return (self._renormalize if self.renorm else self._train)(x, view.feature_shape, residual, weights)
        mean, var = self.moving_mean, self.moving_variance
        y = self._normalize(x, mean, var, self.gamma, self.beta, residual)
        if training:
            statistics = Moments(mean.copy(), var.copy(), 0)
            self._saved = Saved(x, statistics, True, self._kept(y), residual is not None, {})
        return y

    def backward(self, dy: Array) -> Array:
        """Return dx for the last training call, or (dx, dresidual) if it had a residual; leave `dgamma` and `dbeta`.

        Parameters
        ----------
        dy : array of x's shape and dtype, any memory order

        Returns
        -------
        array, or tuple of two
            The type is that without a residual, since no type checker can know the training call. It lets both
            `dx = layer.backward(dy)` and `dx, dresidual = layer.backward(dy)` pass.

        Raises
        ------
        RuntimeError
            If there was no training call since the last backward.
        TypeError, ValueError
            If dy is no such array.
        """
        saved = self._saved
        if saved is None:
            raise RuntimeError("backward needs a call with training=True before it, one for each backward")
        gamma = self.gamma if saved.correction is None else saved.correction.parameters(self.gamma, None)[0]
        dx, dgamma, dbeta, dresidual = self._gradients(dy, saved, gamma)
        assert dx is not None
        if saved.correction is not None:
            dgamma = saved.correction.dgamma(dgamma, dbeta)
        self._set(dgamma=dgamma if self.scale else None, dbeta=dbeta if self.center else None, _saved=None)
        return dx if dresidual is None else (dx, dresidual)  # type: ignore[return-value]

    def recompute_moving(
        self, batches: Iterable[Any], *, masks: Iterable[Mask] | None = None, progress: bool = False
    ) -> None:
        """Set the moving statistics to those of all batches together, as after training ("precise" statistics).

            moving_mean = sum(x)/count    moving_variance = sum((x - moving_mean)**2)/(count - ddof)

        PyTorch's `update_bn` averages the batches' variances instead, and so leaves out what their means differ by.

        Parameters
        ----------
        batches : iterable of arrays
            What this layer is called with, taken one by one, see `population_moments`. `batches_seen` becomes their
            number. With no value in all of them nothing changes.
        masks : iterable of arrays of bool, one for each batch, or None
            The batches' masks, as the layer takes them.
        progress : bool
            Whether to draw a progress bar, by rich (the extra `cli`).

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above, or the feature shape is not the one that the layer was built for.
        """
        population, number = self._population(batches, masks, progress)
        self._build(population.mean.shape)
        if not np.any(population.count):
            return
        kept, variance = settled(population, self.ddof, self.skip_nonfinite)
        found = {"moving_mean": population.mean, "moving_variance": variance}
        if self.renorm:
            found["moving_stddev"] = np.sqrt(variance + self.epsilon)
        own = moving(population.mean.shape, **{name: getattr(self, name) for name in found})
        changes = [
            filling(array, np.where(kept, values, array)) for array, values in zip(own, found.values(), strict=True)
        ]
        write([*changes, (setattr, self, "batches_seen", number)])

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, by name; the activation as a text."""
        given = {name: getattr(self, name) for name in signature(BatchNormalization).parameters}
        return {**given, "dtype": self.dtype.name, "activation": text_of(self.activation) or None}

    def __getstate__(self) -> dict[str, Any]:
        """All but the reference to x: a copy of the layer has had no training call."""
        return {**vars(self), "_saved": None}

    def __repr__(self) -> str:
        """The arguments that are not the defaults."""
        own, defaults = {**self.get_config(), "activation": self.activation}, BatchNormalization().get_config()
        changed = [f"{name}={own[name]!r}" for name in own if not np.array_equal(own[name], defaults[name])]
        return f"{type(self).__name__}({', '.join(changed)})"

    def _trained_directly(self, x: Any, training: Any) -> Array | None:
        """Train by a call of the common kind; None, with nothing done, where this is another."""
        if training is not True or not self.trainable or self.renorm or self.skip_nonfinite:
            return None
        done = direct.training(self, x)
        if done is None:
            return None
        y, batch, change = done
        self._trained([change], Saved(x, batch, False, None, False, {}))
        return y

    def _train(
        self, x: Array, feature_shape: tuple[int, ...], residual: Array | None, weights: dict[str, Any]
    ) -> Array:
        given = {"moving_mean": self.moving_mean, "moving_variance": self.moving_variance}
        moving_mean, moving_variance = moving(feature_shape, **given)
        y, batch = self._batch_norm(x, residual, weights)
        changes = moved(moving_mean, moving_variance, batch, self._momentum(), self.ddof, self.skip_nonfinite)
        self._trained(changes, Saved(x, batch, False, self._kept(y), residual is not None, weights))
        return y

    def _renormalize(
        self, x: Array, feature_shape: tuple[int, ...], residual: Array | None, weights: dict[str, Any]
    ) -> Array:
        statistics = Statistics(*moving(feature_shape, **{name: getattr(self, name) for name in Statistics._fields}))
        batch = self._moments(x, weights)
        correction = correction_of(batch, statistics, self.epsilon, self._clipping)
        y = self._normalize(
            counted(x, batch.count, axes.feature_axes(self.axis, x.ndim, "axis")),
            batch.mean,
            batch.var,
            *correction.parameters(self.gamma, self.beta),
            residual,
        )
        moves = moved_statistics(
            statistics, batch, self.epsilon, self._momentum(), self.renorm_momentum, self.skip_nonfinite
        )
        self._trained(moves, Saved(x, batch, False, self._kept(y), residual is not None, weights, correction))
        return y

    def _trained(self, changes: list[Change], saved: Saved) -> None:
        """End a training call: whatever it changes, at once."""
        count = saved.statistics.count
        batches_seen = self.batches_seen + bool((count.max(initial=0) if isinstance(count, np.ndarray) else count) > 0)
        write([*changes, (setattr, self, "batches_seen", batches_seen), (setattr, self, "_saved", saved)])

    def _set(self, **attributes: Any) -> None:
        write([(setattr, self, name, value) for name, value in attributes.items()])

    def _kept(self, y: Array) -> Array | None:
        """Return y where backward needs it."""
        return None if self.activation is None else y

    def _momentum(self) -> float:
        return self.batches_seen / (self.batches_seen + 1) if self.momentum is None else self.momentum

    def _normalize(
        self, x: Array, mean: Array, var: Array, gamma: Array | None, beta: Array | None, residual: Array | None
    ) -> Array:
        return normalize(
            *(x, mean, var, gamma, beta, self.axis), epsilon=self.epsilon, activation=self.activation, residual=residual
        )

    def _build(self, feature_shape: tuple[int, ...]) -> None:
        built = self._feature_shape
        if built is None:
            self._set(**building.initial_weights(self, feature_shape), _feature_shape=feature_shape)
        elif feature_shape != built:
            raise ValueError(f"the layer was built for the feature shape {built}, got {feature_shape}")

    # ---- hooks that SyncBatchNormalization overrides, see `bnnumba.mpi`

    def _moments(self, x: Array, weights: dict[str, Any]) -> Moments:
        return moments(x, self.axis, **weights)

    def _batch_norm(self, x: Array, residual: Array | None, weights: dict[str, Any]) -> tuple[Array, Moments]:
        return batch_norm(
            *(x, self.gamma, self.beta, self.axis),
            epsilon=self.epsilon,
            activation=self.activation,
            residual=residual,
            **weights,
        )

    def _gradients(self, dy: Array, saved: Saved, gamma: Array | None) -> Gradients[Any, Any]:
        return batch_norm_backward(
            *(dy, saved.x, *saved.statistics[:2], gamma, self.axis),
            epsilon=self.epsilon,
            frozen=saved.frozen,
            y=saved.y,
            activation=self.activation,
            residual=saved.residual,
            **saved.weights,
        )

    def _population(self, batches: Iterable[Any], masks: Any, progress: bool) -> tuple[Moments, int]:
        return pooled_moments(batches, masks, Reading(self.axis, "axis", keras=True), progress)
