"""Batch normalization of data larger than one machine: statistics and inference on Dask's arrays (the extra `dask`)."""

from typing import TYPE_CHECKING, Any

try:
    import dask.array  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("bnnumba.dask needs Dask: pip install 'bnnumba[dask]'") from error

from bnnumba.dask.inference import normalize
from bnnumba.dask.statistics import moments

if TYPE_CHECKING:
    from bnnumba.dask.standardizer import Standardizer

__all__ = ["Standardizer", "moments", "normalize"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name != "Standardizer":
            raise AttributeError(f"module 'bnnumba.dask' has no attribute {name!r}")
        from bnnumba.dask.standardizer import Standardizer  # noqa: PLC0415  # it needs scikit-learn, which others do not

        return Standardizer
