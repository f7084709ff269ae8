"""What a layer is made of, without the layer: what `exchange` and `storage` give to it and take from it."""

from typing import Any, NamedTuple

from bnnumba._types import Array


class State(NamedTuple):
    """The constructor's arguments; the weights by name, of the feature shape, which is None for a layer not built."""

    config: dict[str, Any]
    feature_shape: tuple[int, ...] | None
    weights: dict[str, Array]
    trainable: bool = True
    batches_seen: int = 0
