"""Where the disk cache cannot be used as it should, kernels are compiled anew, and a warning says so."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.tools.subprocesses import run_python

STEP = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numpy, bnnumba
    mean, var = numpy.zeros(2), numpy.ones(2)
    bnnumba.update_moving(mean, var, bnnumba.Moments(numpy.ones(2), numpy.ones(2), 3), 0.75)
assert (mean == 0.25).all()
print(*sorted({str(warning.message) for warning in caught}), sep="\\n")
"""


def warnings_of_a_step(directory, **environment):
    return run_python("-c", STEP, NUMBA_CACHE_DIR=str(directory), **environment).strip()


def halved(content, rng):
    return content[: len(content) // 2]


def flipped(content, rng):
    place, bit = rng.integers(len(content)), 2 ** rng.integers(8)
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def zeroed(content, rng):
    start = rng.integers(len(content) // 4096) * 4096
    return content[:start] + bytes(4096) + content[start + 4096 :]


@pytest.mark.parametrize("damage", [halved, flipped, zeroed, lambda *_: b""])
def test_damaged_files_are_replaced(tmp_path, damage):
    assert not warnings_of_a_step(tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(1 if damage is halved else 3):
        (file,) = tmp_path.rglob("*.nbc")
        file.write_bytes(damage(file.read_bytes(), rng))
        assert f"cannot be used (its checksum is wrong): {file} is made anew" in warnings_of_a_step(tmp_path)
        assert not warnings_of_a_step(tmp_path)


def test_a_symbol_that_is_not_there(tmp_path):
    """As with another version of Numba: LLVM would end the process."""
    add = """
from bnnumba import _cache
reduce = _cache._Implementation.reduce
_cache._Implementation.reduce = lambda *given: (["numba_no_such_function"], reduce(*given)[1])
"""
    assert not run_python("-c", add + STEP, NUMBA_CACHE_DIR=str(tmp_path)).strip()
    assert "it needs numba_no_such_function" in warnings_of_a_step(tmp_path)
    assert not warnings_of_a_step(tmp_path)


def test_the_symbols_that_a_kernel_needs(tmp_path):
    """Among them what the run-time system has, and none that the kernel defines."""
    show = """
from bnnumba import _cache
rebuild = _cache._Implementation.rebuild
def shown(self, context, payload):
    print(*payload[0])
    return rebuild(self, context, payload)
_cache._Implementation.rebuild = shown
"""
    warnings_of_a_step(tmp_path)
    symbols = run_python("-c", show + STEP, NUMBA_CACHE_DIR=str(tmp_path)).split()
    assert "NRT_adapt_ndarray_from_python" in symbols
    assert not [name for name in symbols if "update_moving" in name or name.startswith("llvm.")]


@pytest.mark.parametrize("module", ["numba", "llvmlite"])
def test_another_version_has_files_of_its_own(tmp_path, module):
    assert not warnings_of_a_step(tmp_path)
    (file,) = tmp_path.rglob("*.nbc")
    content = file.read_bytes()
    other = f"import numba, llvmlite\n{module}.__version__ = '99.0'\n"
    assert not run_python("-c", other + STEP, NUMBA_CACHE_DIR=str(tmp_path)).strip()
    assert len(list(tmp_path.rglob("*.nbc"))) == 2
    assert file.read_bytes() == content


def test_two_processes_compile_at_once(tmp_path):
    with ThreadPoolExecutor() as threads:
        assert not any(threads.map(warnings_of_a_step, [tmp_path] * 2))


BOTH_DTYPES = """
import numpy, bnnumba
for dtype in ("float32", "float64"):
    mean, var = numpy.zeros(2, dtype), numpy.ones(2, dtype)
    bnnumba.update_moving(mean, var, bnnumba.Moments(numpy.ones(2), numpy.ones(2), 3), 0.75)
    print(mean)
"""


def test_a_file_with_another_versions_code(tmp_path):
    expected = run_python("-c", BOTH_DTYPES, NUMBA_CACHE_DIR=str(tmp_path))
    one, other = tmp_path.rglob("*update_moving_serial*.nbc")
    one.rename(tmp_path / "kept")
    other.rename(one)
    (tmp_path / "kept").rename(other)
    assert run_python("-c", BOTH_DTYPES, NUMBA_CACHE_DIR=str(tmp_path)) == expected


@pytest.mark.parametrize("impossible", ["/proc/nowhere", "/dev/null/under-a-file"])
def test_impossible_directory(impossible):
    assert not warnings_of_a_step(impossible)


def test_no_directory_at_all(tmp_path):
    """Only places that are not there may be looked at."""
    warned = warnings_of_a_step(tmp_path, NUMBA_CACHE_LOCATOR_CLASSES="ZipCacheLocator")
    assert "no directory can hold compiled kernels" in warned
    assert not list(tmp_path.iterdir())


def test_directory_lost_before_the_kernel_is_kept(tmp_path):
    lost = tmp_path / "lost"
    lose = f"import shutil; shutil.rmtree({str(lost)!r}); open({str(lost)!r}, 'w').close()\n    mean, var ="
    assert "cannot be cached" in run_python("-c", STEP.replace("mean, var =", lose), NUMBA_CACHE_DIR=str(lost))
