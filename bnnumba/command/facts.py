"""What a bug report needs: versions, processor, threads, cache."""

import math
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import numba
from llvmlite import binding

import bnnumba
from bnnumba._past_cache import past_cache_bytes
from bnnumba._quota import cpu_quota
from bnnumba._threads import usual_threads
from bnnumba.command.warm_up import Job
from bnnumba.kernels.simd import CAN_STREAM

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "tbb")
FEATURES = ("fma", "avx2", "avx512f", "neon", "sve")  # what tells how fast the kernels can be


def facts(jobs: list[Job]) -> list[tuple[str, str]]:
    """Name and value."""
    return [
        ("bnnumba", bnnumba.__version__),
        ("Python", f"{platform.python_version()}, {platform.system()} {platform.release()}, {platform.machine()}"),
        ("packages", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)),
        ("processor", f"{_processor()}; to LLVM {binding.get_host_cpu_name()}, {', '.join(_features())}"),
        ("stores past the cache", f"from {past_cache_bytes() / 2**20:g} MiB of data in all" if CAN_STREAM else "none"),
        ("threads", f"{min(numba.get_num_threads(), usual_threads())} on {_cores()} cores{_quota()}"),
        ("compiled kernels", cache(jobs)),
        ("settings", ", ".join(_settings()) or "none"),
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """As Linux has it; elsewhere what Python knows."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _features() -> list[str]:
    host = binding.get_host_cpu_features()
    return [name for name in FEATURES if host.get(name)] or ["none of " + ", ".join(FEATURES)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> str:
    quota = cpu_quota()
    return f", of which a quota leaves {quota:g}" if quota < math.inf else ""


def cache(jobs: list[Job]) -> str:
    """How many kernels the disk cache holds, and where."""
    if not jobs:
        return "none: NUMBA_DISABLE_JIT is set"
    if not kept(jobs):
        return "not kept: no directory can be written to"
    return f"{sum(job.cached for job in jobs)} of {len(jobs)} in {jobs[0].kernel.stats.cache_path}"


def kept(jobs: list[Job]) -> bool:
    """Whether there is a disk cache."""
    return any(job.kernel.stats.cache_path for job in jobs)


def _settings() -> list[str]:
    prefixes = ("NUMBA_", "BNNUMBA_", "OMP_", "KMP_", "TBB_")
    return [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(prefixes)]
