"""Compiled kernels on disk: a file for each kernel and the types, processor and versions that it was compiled for.

Numba's own cache trusts its files: a flipped bit in machine code would end the process, and so would a function that
another version of Numba does not have. Here each file begins with a checksum of the rest, and names the functions that
the kernel calls. Where the disk fails, kernels are compiled anew, and a warning says so.
"""

import os
import pickle
import warnings
from collections.abc import Callable
from hashlib import blake2b
from inspect import signature as parameters_of
from pathlib import Path
from typing import Any
from uuid import uuid4

import llvmlite
import numba
from llvmlite import binding
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature

CHECKSUM_BYTES = 16
PLACE = "; NUMBA_CACHE_DIR names a directory for them"


class _Implementation(CompileResultCacheImpl):  # type: ignore[misc]  # Numba has no types
    """Numba's own, with the functions and numbers outside the kernel that its machine code needs."""

    def reduce(self, compiled: Any) -> Any:
        module = compiled.library._get_module_for_linking()
        named = [*module.functions, *module.global_variables]
        outside = [each.name for each in named if each.is_declaration and not each.name.startswith("llvm.")]
        return outside, super().reduce(compiled)

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        outside, parts = payload
        given = parameters_of(CompileResult._rebuild).bind(target_context, *parts).arguments
        for make_known in given["reload_init"]:
            make_known()
        missing = [name for name in outside if binding.address_of_symbol(name) is None]
        if missing:
            raise LookupError(f"it needs {', '.join(missing)}")
        return super().rebuild(target_context, parts)


class _Files:
    """The files of one kernel. What a file is for is a part of its name, and of what it holds."""

    def __init__(self, directory: str, base: str, stamp: Any) -> None:
        self._directory, self._base = Path(directory), base
        self._versions = numba.__version__, llvmlite.__version__, stamp

    def holds(self, key: Any) -> bool:
        return self.path(key).exists()

    def load(self, key: Any) -> Any:
        """Return what was saved, or None; raise ValueError where a file is damaged."""
        try:
            content = self.path(key).read_bytes()
        except FileNotFoundError:
            return None
        checksum, rest = content[:CHECKSUM_BYTES], content[CHECKSUM_BYTES:]
        if checksum != _checksum(rest):
            raise ValueError("its checksum is wrong")
        saved_for, data = pickle.loads(rest)
        return data if saved_for == self._text(key) else None

    def save(self, key: Any, data: Any) -> None:
        """Save, so that other processes see all of it or nothing."""
        rest, path = dumps((self._text(key), data)), self.path(key)
        begun = path.with_suffix(f".{uuid4().hex[:8]}")
        try:
            begun.write_bytes(_checksum(rest) + rest)
            os.replace(begun, path)
        finally:
            begun.unlink(missing_ok=True)

    def drop(self, key: Any) -> None:
        self.path(key).unlink(missing_ok=True)

    def flush(self) -> None:
        """Remove all, as Numba's caches can."""
        for path in self._directory.glob(f"{self._base}-*.nbc"):
            path.unlink(missing_ok=True)

    def _text(self, key: Any) -> str:
        signature, *target_and_code = key
        types = [(str(kind), str(getattr(kind, "instance_class", ""))) for kind in normalize_signature(signature)[0]]
        return repr((types, target_and_code, self._versions))

    def path(self, key: Any) -> Path:
        """Where a version is, or would be."""
        return self._directory / f"{self._base}-{_checksum(self._text(key).encode()).hex()}.nbc"


class _KernelCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of a kernel, over such files; none of them ends the call that wanted the kernel."""

    _impl_class = _Implementation

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        locator = self._impl.locator
        self._cache_file = _Files(locator.get_cache_path(), self._impl.filename_base, locator.get_source_stamp())

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
            key = self._index_key(signature, target_context.codegen())
            _warn(f"a compiled kernel on disk cannot be used ({error}): {self._cache_file.path(key)} is made anew")
            self._drop(key)
            return None
        return loaded if loaded is None or loaded.signature.args == normalize_signature(signature)[0] else None

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            super().save_overload(signature, data)
        except OSError as error:
            _warn(f"a compiled kernel cannot be cached ({error!r}){PLACE}")

    def holds(self, signature: Any, target_context: Any) -> bool:
        """Whether a kernel would be loaded; whether its file is whole is only seen then."""
        return self._cache_file.holds(self._index_key(signature, target_context.codegen()))

    def _drop(self, key: Any) -> None:
        try:
            self._cache_file.drop(key)
        except OSError as error:
            _warn(f"a damaged cache cannot be replaced ({error!r}){PLACE}")


class _NoCache(NullCache):  # type: ignore[misc]
    def holds(self, signature: Any, target_context: Any) -> bool:  # noqa: ARG002  # as of `_KernelCache`
        return False


def cache_for(function: Callable[..., Any]) -> Any:
    """The cache of a dispatcher, in the first directory that can be written to; none at all where there is none."""
    try:
        return _KernelCache(function)
    except (RuntimeError, OSError):  # no place is writeable; or the one that NUMBA_CACHE_DIR names cannot be
        _warn(f"no directory can hold compiled kernels, which every process then compiles anew{PLACE}")
        return _NoCache()


def _checksum(data: bytes) -> bytes:
    return blake2b(data, digest_size=CHECKSUM_BYTES).digest()


def _warn(trouble: str) -> None:
    warnings.warn(f"bnnumba: {trouble}", RuntimeWarning, stacklevel=3)
