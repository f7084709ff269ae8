"""What a layer is made of: its weights and arguments, which `exchange` and `storage` take from it and give to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from bnnumba import checks
from bnnumba._types import Array
from bnnumba.outputs import filling, write

WEIGHTS = ("gamma", "beta", "moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev")
NONE_YET: Any = None  # of arrays that are typed as they are in a built layer, so that a training loop needs no checks


class State(NamedTuple):
    """The constructor's arguments; the weights by name, of the feature shape, which is None for a layer not built."""

    config: dict[str, Any]
    feature_shape: tuple[int, ...] | None
    weights: dict[str, Array]
    trainable: bool = True
    batches_seen: int = 0


class Stateful:
    """A layer of which a State is taken, and which is made of one.

    Weights that are not there, or not yet, are None.
    """

    gamma: Array = NONE_YET
    beta: Array = NONE_YET
    moving_mean: Array = NONE_YET
    moving_variance: Array = NONE_YET
    moving_stddev: Array = NONE_YET
    renorm_mean: Array = NONE_YET
    renorm_stddev: Array = NONE_YET
    trainable: bool
    batches_seen: int
    _feature_shape: tuple[int, ...] | None

    @property
    def built(self) -> bool:
        """Whether there are weights: `build`, or the first call, makes them."""
        return self._feature_shape is not None

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, by name."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A new layer, not built, with the arguments that `get_config` gave."""
        return cls(**config)

    def get_weights(self) -> list[Array]:
        """Copies of the weights that there are, in Keras's order.

        gamma, beta, moving_mean, moving_variance, moving_stddev, renorm_mean, renorm_stddev.
        """
        return [weight.copy() for weight in self._weights().values()]

    def set_weights(self, weights: Sequence[Array]) -> None:
        """Set the weights, in the order of `get_weights`.

        Raises
        ------
        TypeError, ValueError
            If the layer is not built, or the arrays are not as many, or not float arrays of the feature shape.
        """
        own = self._weights()
        came = _weights(weights, list(own), self._feature_shape)
        written = [checks.moving(name, weight, weight.shape) for name, weight in own.items()]
        write([filling(weight, values) for weight, values in zip(written, came, strict=True)])

    def _build(self, feature_shape: tuple[int, ...]) -> None:
        raise NotImplementedError

    def _weights(self) -> dict[str, Array]:
        """The weights that there are, by name."""
        named = {name: getattr(self, name) for name in WEIGHTS}
        return {name: weight for name, weight in named.items() if weight is not None}

    def _state(self) -> State:
        own = self._weights()
        checked = _weights(list(own.values()), list(own), self._feature_shape) if own else []
        weights = dict(zip(own, checked, strict=True))
        return State(self.get_config(), self._feature_shape, weights, bool(self.trainable), int(self.batches_seen))

    @classmethod
    def _of(cls, state: State) -> Self:
        layer = cls(**state.config)
        layer.trainable, layer.batches_seen = state.trainable, state.batches_seen
        if state.feature_shape is not None:
            layer._build(state.feature_shape)
            names = list(layer._weights())
            _check_names(list(state.weights), names)
            came = _weights([state.weights[name] for name in names], names, state.feature_shape)
            for name, weight in zip(names, came, strict=True):
                setattr(layer, name, weight)
        return layer


def _weights(values: object, names: list[str], shape: tuple[int, ...] | None) -> list[Array]:
    """A list of arrays of the feature shape, one for each of the layer's weights."""
    if shape is None:
        raise ValueError("the layer must be built before its weights are set: call build, or the layer, first")
    if not isinstance(values, list | tuple):
        raise TypeError(f"weights must be a list of arrays, got {checks.described(values)}")
    if len(values) != len(names):
        raise ValueError(f"weights must be {len(names)} arrays ({', '.join(names)}), got {len(values)}")
    return [checks.features(name, value, shape) for name, value in zip(names, values, strict=True)]


def _check_names(came: list[str], names: list[str]) -> None:
    if set(came) != set(names):
        raise ValueError(f"the weights must be {', '.join(names)}, got {', '.join(came)}")
