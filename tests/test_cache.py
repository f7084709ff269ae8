"""Where the disk cache cannot be used as it should, kernels are compiled anew, and a warning says so."""

from concurrent.futures import ThreadPoolExecutor

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


def test_damaged_files_are_replaced(tmp_path):
    assert not warnings_of_a_step(tmp_path)
    for kind in ("nbi", "nbc"):
        files = list(tmp_path.rglob(f"*.{kind}"))
        assert files
        for file in files:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        assert "cannot be read" in warnings_of_a_step(tmp_path)
        assert not warnings_of_a_step(tmp_path)


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
    """So two processes that compile at once may leave it: an index that names a file which the other has replaced."""
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
