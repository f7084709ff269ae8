"""Which kernels there are to compile, for which types, and which of them the disk cache holds."""

from typing import Any, NamedTuple

import numba
from numba import types

from bnnumba.kernels import serial, threaded

FORMS = {"serial": serial, "threaded": threaded}


class Job(NamedTuple):
    """One kernel for one dtype."""

    name: str
    kernel: Any
    signature: tuple[Any, ...]

    def compile(self) -> None:
        """Compile it, or load it from the cache."""
        self.kernel.compile(self.signature)

    @property
    def cached(self) -> bool:
        """Whether the disk cache holds it."""
        return bool(self.kernel._cache.holds(self.signature, self.kernel.targetctx))


def jobs() -> list[Job]:
    """Every kernel, in both forms, for both dtypes; none where NUMBA_DISABLE_JIT leaves nothing to compile."""
    if numba.config.DISABLE_JIT:
        return []
    return [
        Job(f"{form}.{name} of {dtype}", getattr(module, name), signature)
        for form, module in FORMS.items()
        for dtype in (types.float32, types.float64)
        for name, signature in _signatures(dtype).items()
    ]


def _signatures(dtype: Any) -> dict[str, tuple[Any, ...]]:
    x, f, number, count = types.Array(dtype, 3, "C"), types.Array(types.float64, 1, "C"), types.float64, types.int64
    moving, rows = types.Array(dtype, 1, "C"), types.Array(types.float64, 2, "C")
    forward, backward = (x, f, f, number, x), (x, x, f, f, f, number, x)
    fused_backward = (x, x, x, f, f, f, number, x)
    update = (moving, moving, f, f, count, number, count)
    return {
        "moments": (x,),
        "moments_into": (x, f, f),
        "moments_and_rest_into": (x, f, f, f),
        "weighted_moments_into": (x, types.Array(types.float64, 3, "C"), f, f),
        "normalize": (x, f, f, f, f, number, x),
        "batch_norm": forward,
        "batch_norm_into": (*forward, f, f),
        "gradient_sums": (x, x, f, f, number),
        "gradient_sums_into": (x, x, f, f, number, f, f),
        "input_gradient": (x, x, f, f, f, f, f, number, x),
        "frozen_input_gradient": (x, f, f, number, x),
        "batch_norm_backward": backward,
        "batch_norm_backward_into": (*backward, f, f),
        "frozen_backward": backward,
        "frozen_backward_into": (*backward, f, f),
        "normalize_relu": (x, f, f, f, f, number, x),
        "normalize_add": (x, x, f, f, f, f, number, x),
        "normalize_add_relu": (x, x, f, f, f, f, number, x),
        "batch_norm_relu_into": (*forward, f, f),
        "batch_norm_add_into": (x, *forward, f, f),
        "batch_norm_add_relu_into": (x, *forward, f, f),
        "relu_gradient_sums_into": (x, x, x, f, f, number, f, f),
        "add_relu_gradient_sums_into": (x, x, x, f, f, number, x, f, f),
        "relu_backward_into": (*fused_backward, f, f),
        "remade_relu_backward_into": (x, x, f, f, f, f, number, x, f, f),
        "add_relu_backward_into": (*fused_backward, x, f, f),
        "frozen_relu_backward_into": (*fused_backward, f, f),
        "frozen_add_relu_backward_into": (*fused_backward, x, f, f),
        "subtract_weighted": (x, types.Array(types.float64, 3, "C"), x),
        "pool_into": (f, rows, f, rows, rows),
        "update_moving": update,
        "update_moving_finite": update,
    }
