"""Batch normalization of JAX's arrays on the CPU, as calls that XLA makes to the compiled kernels (the extra `jax`)."""

try:
    import jax  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("bnnumba.jax needs JAX: pip install 'bnnumba[jax]'") from error

from bnnumba.jax.functions import batch_norm, normalize

__all__ = ["batch_norm", "normalize"]
