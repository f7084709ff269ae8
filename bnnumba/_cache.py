"""Numba's disk cache for the kernels; where the disk fails it, kernels are compiled anew, and a warning says so."""

import warnings
from collections.abc import Callable
from typing import Any

from numba.core.caching import FunctionCache, NullCache
from numba.core.runtime import rtsys
from numba.core.sigutils import normalize_signature


class _KernelCache(FunctionCache):  # type: ignore[misc]  # Numba has no types
    """Numba's own cache lets a damaged or unwriteable file end the call that wanted the kernel."""

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Load a kernel without what Numba's own method does first, which is to import all that a compilation needs.

        Machine code needs the run-time system only. The rest, SciPy's linear algebra among it where that is installed,
        takes 0.2 s of the 0.25 s that the first call in a process would take.
        """
        rtsys.initialize(target_context)
        try:
            with self._guard_against_spurious_io_errors():
                loaded = self._load_overload(signature, target_context)
        except Exception as error:  # a damaged pickle may raise any
            _warn(f"a cached kernel cannot be read ({error!r}) and is compiled anew")
            self._drop_index()
            return None
        # Two processes that compile at once may give one file's name to kernels of different types.
        if loaded is not None and loaded.signature.args != normalize_signature(signature)[0]:
            return None
        return loaded

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            super().save_overload(signature, data)
        except OSError as error:
            _warn(f"a compiled kernel cannot be cached ({error!r})")

    def holds(self, signature: Any, target_context: Any) -> bool:
        """Whether a kernel would be loaded; whether its file is whole is only seen then."""
        try:
            return self._index_key(signature, target_context.codegen()) in self._cache_file._load_index()
        except Exception:  # as above
            return False

    def _drop_index(self) -> None:
        try:
            self.flush()
        except OSError as error:
            _warn(f"a damaged cache cannot be replaced ({error!r})")


class _NoCache(NullCache):  # type: ignore[misc]
    def holds(self, signature: Any, target_context: Any) -> bool:  # noqa: ARG002  # as of `_KernelCache`
        return False


def cache_for(function: Callable[..., Any]) -> Any:
    """The cache of a dispatcher, in the first directory that can be written to; none at all where there is none."""
    try:
        return _KernelCache(function)
    except (RuntimeError, OSError):  # no place is writeable; or the one that NUMBA_CACHE_DIR names cannot be
        _warn("no directory can hold compiled kernels, which every process then compiles anew")
        return _NoCache()


def _warn(trouble: str) -> None:
    warnings.warn(f"bnnumba: {trouble}; NUMBA_CACHE_DIR names a directory for them", RuntimeWarning, stacklevel=3)
