"""The tests marked `subset` once more, in other modes: plain Python, bounds checked, without AVX."""

from bnnumba.kernels import serial
from tests.processes.kernel_results import digest, every_result
from tests.tools.problems import problem
from tests.tools.subprocesses import run_python

PLAIN = {"NUMBA_DISABLE_JIT": "1"}
CHECKED = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
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


def run_subset(**environment):
    printed = run_python(*SUBSET, **environment)
    assert " passed" in printed
    assert "skipped" not in printed


def test_as_plain_python():
    run_subset(**PLAIN)


def test_with_bounds_checked_on_a_generic_cpu():
    """Without AVX, fused multiply-add is a call, and rounds the same. One compilation serves both."""
    run_subset(**CHECKED)
    assert run_python("-c", PRINT_DIGEST, **CHECKED).strip() == own_digest()
