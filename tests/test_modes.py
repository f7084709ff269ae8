"""The tests marked `subset` once more, in other modes: plain Python, bounds checked, without AVX.

Kernels that store everything past the cache are in test_memory_safety: all of them, on all shapes.
"""

import pytest

from bnnumba.kernels import serial
from tests.processes.kernel_results import digest, every_result
from tests.tools.problems import problem
from tests.tools.subprocesses import run_python

GENERIC = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
MODES = {
    "as plain Python": {"NUMBA_DISABLE_JIT": "1"},
    "with bounds checked": {"NUMBA_BOUNDSCHECK": "1"},
    "on a generic CPU": GENERIC,
}
SUBSET = (
    "-m",
    "pytest",
    "-q",
    "-m",
    "subset",
    "-p",
    "no:cacheprovider",
    "tests/test_functional.py",
    "tests/test_kernels.py",
    "tests/test_half.py",
)
PRINT_DIGEST = """
from tests.test_modes import own_digest
print(own_digest())
"""


def own_digest():
    return digest(every_result(serial, problem((70, 3, 1), 1, offset=100.0)))


@pytest.mark.parametrize("mode", MODES)
def test_subset(mode, tmp_path):
    """Each mode has a cache of its own: what is cached does not say whether bounds are checked."""
    environment = {**MODES[mode], "NUMBA_CACHE_DIR": str(tmp_path)}
    printed = run_python(*SUBSET, **environment)
    assert " passed" in printed
    assert "skipped" not in printed
    if MODES[mode] is GENERIC:  # without AVX, fused multiply-add is a call, and rounds the same
        assert run_python("-c", PRINT_DIGEST, **environment).strip() == own_digest()
