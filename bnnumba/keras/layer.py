"""BatchNormalization of Keras, computed here."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

import keras
from keras import ops

from bnnumba.activations import Activation, LeakyRelu, Relu, Relu6, activation_of, public, text_of
from bnnumba.keras.fusing import activation_behind

BACKENDS = ("tensorflow", "jax", "torch")
DATA_DTYPES = ("float32", "float64", "float16", "bfloat16")

_log = logging.getLogger("bnnumba.keras")


@keras.saving.register_keras_serializable("bnnumba")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization in Keras: `keras.layers.BatchNormalization`, computed here.

        y = act(gamma * (x - mean)/sqrt(var + epsilon) + beta)
        training: mean and population variance of the batch; moving = momentum*moving + (1 - momentum)*batch
        otherwise: moving_mean and moving_variance

    Constructor, weights, masks, renorm and files are Keras's, but for the following.

    Parameters
    ----------
    activation : None, a name or an instance of `bnnumba.activations`, by keyword only
        What stands behind the normalization, done in the same pass.
    synchronized : bool
        Must be False.

    Raises
    ------
    ValueError
        If synchronized is True, or the activation is none of these.
    """

    _activation = ""  # of layers that were converted

    def __init__(self, *arguments: Any, activation: Activation | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.synchronized:
            raise ValueError(
                "synchronized must be False, got True: several devices' batches are not one here; "
                "use keras.layers.BatchNormalization"
            )
        self.activation = activation

    @property
    def activation(self) -> Activation | None:
        """What stands behind the normalization."""
        return public(activation_of(self._activation or None))

    @activation.setter
    def activation(self, value: Activation | None) -> None:
        self._activation = text_of(value)

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Return y, of the inputs' shape and the layer's compute dtype.

        Parameters
        ----------
        inputs : tensor
        training : bool
            Whether to normalize by the batch's statistics, unless the layer is not trainable.
        mask : tensor of the inputs' shape without the last axis, or None
            Which positions make the batch's statistics.
        """
        by_batch = training and self.trainable
        if mask is not None and (by_batch or len(mask.shape) != len(inputs.shape) - 1):  # which Keras refuses
            return self._by_keras(inputs, training, mask)
        backend = keras.backend.backend()
        if backend not in BACKENDS:
            return self._refused(f"the backend {backend} has no gradients here", inputs, training, mask)
        here = import_module(f"bnnumba.keras.{backend}")
        refused = here.refusal(inputs)
        if refused:
            return self._refused(refused, inputs, training, mask)
        x = self._data(inputs)
        if by_batch:
            y = self._renormalize(here, x) if self.renorm else self._train(here, x)
        else:
            statistics = self.moving_mean.value, self.moving_variance.value
            y = here.normalize(x, *statistics, *self._affine(), self.axis, self.epsilon, self._act())
        return ops.cast(y, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Keras's, and the activation as a text, if there is one."""
        config: dict[str, Any] = super().get_config()
        return {**config, "activation": self._activation} if self._activation else config

    def _train(self, here: Any, x: Any) -> Any:
        moving = self.moving_mean.value, self.moving_variance.value
        done = here.batch_norm(x, *self._affine(), moving, self.axis, self.epsilon, self.momentum, self._act())
        self.moving_mean.assign(done.moving_mean)
        self.moving_variance.assign(done.moving_variance)
        return done.y

    def _renormalize(self, here: Any, x: Any) -> Any:
        """Train by batch renormalization; Keras makes r and d, and moves the statistics."""
        wide = keras.backend.result_type(x.dtype, "float32")
        x, moving = ops.cast(x, wide), (self.moving_mean.value, self.moving_variance.value)
        done = here.batch_norm(x, None, None, moving, self.axis, self.epsilon, self.momentum, None)
        mean, var = ops.cast(done.mean, wide), ops.cast(done.var, wide)
        r, d, mean, var = self._renorm_correction_and_moments(mean, var)
        gamma, beta = (None if each is None else ops.cast(each, wide) for each in self._affine())
        gamma, beta = self._compose_transforms(r, d, gamma, beta, wide)
        self._update_renorm_statistics(mean, var)
        sizes = [1] * len(x.shape)
        sizes[self.axis] = -1
        return self._activated(done.y * ops.reshape(gamma, sizes) + ops.reshape(beta, sizes))

    def _data(self, inputs: Any) -> Any:
        """The inputs in the dtype in which to compute: their own, if the result has that, else at least float32."""
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        if dtype == self.compute_dtype and dtype in DATA_DTYPES:
            return inputs
        return ops.cast(inputs, keras.backend.result_type(dtype, "float32"))

    def _affine(self) -> tuple[Any, Any]:
        """The values of gamma and beta; None without."""
        return self.gamma.value if self.scale else None, self.beta.value if self.center else None

    def _act(self) -> Any:
        return activation_of(self._activation or activation_behind(self) or None)

    def _refused(self, reason: str, inputs: Any, training: Any, mask: Any) -> Any:
        _log.warning("%s: computed by Keras's own layer: %s", self.path, reason)
        return self._by_keras(inputs, training, mask)

    def _by_keras(self, inputs: Any, training: Any, mask: Any) -> Any:
        return self._activated(super().call(inputs, training=training, mask=mask))

    def _activated(self, y: Any) -> Any:
        """Y behind the activation, by Keras's own operations."""
        act = self._act()
        if isinstance(act, LeakyRelu):
            return ops.leaky_relu(y, negative_slope=act.negative_slope)
        return y if act is None else {Relu: ops.relu, Relu6: ops.relu6}[type(act)](y)
