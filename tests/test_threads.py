"""The package's threads: how many, when they start, and that nobody waits for one that does not come."""

import math

import numba
import pytest

from bnnumba import _threads
from bnnumba._quota import cpu_quota
from tests.tools.subprocesses import run_python


def groups(tmp_path, lines, files):
    """A machine's control groups: the process's membership, and the root of all."""
    membership, root = tmp_path / "membership", tmp_path / "root"
    membership.write_text("\n".join(lines))
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return membership, root


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        (["0::/"], {}, math.inf),
        (["0::/"], {"cpu.max": "max 100000\n"}, math.inf),
        (["0::/"], {"cpu.max": "150000 100000\n"}, 1.5),
        (["0::/a/b"], {"cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000"}, 0.5),
        (["0::/a/b"], {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "200000 100000"}, 2.0),
        (["0::/elsewhere"], {"cpu.max": "100000 100000\n"}, 1.0),  # a container's own root, named from outside
        (["0::/"], {"cpu.max": "garbage\n"}, math.inf),
        (["3:cpu,cpuacct:/a", "2:memory:/a"], {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n",
                                               "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
                                               "memory/a/cpu.max": "1 100000"}, 0.5),
        (["3:cpu,cpuacct:/a"], {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3.0),
        (["3:cpu:/"], {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
    ],
)  # fmt: skip
def test_the_cpu_quota(lines, files, expected, tmp_path):
    assert cpu_quota(*groups(tmp_path, lines, files)) == expected


def test_without_control_groups(tmp_path):
    assert cpu_quota(tmp_path / "membership", tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "expected"), [(math.inf, 8), (0.3, 1), (1.0, 1), (1.5, 2), (2.0, 2), (9.0, 8)])
def test_a_quota_bounds_the_threads(quota, expected, monkeypatch):
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 8)
    monkeypatch.setattr(_threads, "cpu_quota", lambda: quota)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert _threads.usual_threads() == expected
    monkeypatch.setenv("NUMBA_NUM_THREADS", "8")
    assert _threads.usual_threads() == 8


COUNTS = """
import numba
import numpy as np
import bnnumba
from bnnumba import _threads
from bnnumba.kernels import workers

x = np.ones((1000, 300), np.float32)
_threads.usual_threads = lambda: 2  # as a quota would
_threads._begin()
print(workers.state[workers.WORKERS // 8])
for number in (4, 3, 1, 2):
    numba.set_num_threads(number)
    before = workers.state[workers.JOB // 8]
    bnnumba.moments(x)
    parts, jobs = workers.state[workers.PARTS // 8], workers.state[workers.JOB // 8] - before
    print(workers.state[workers.WORKERS // 8], parts if jobs else 1)
"""


def test_threads_are_started_as_they_are_wanted():
    """None at first; of all 4 that Numba has, 2 by the quota; 3 where the user says so; of 1 and 2 no more."""
    printed = run_python("-c", COUNTS, NUMBA_NUM_THREADS="4")
    assert printed.split("\n") == ["0", "1 2", "2 3", "2 1", "2 2", ""]


USER = """
import numba
import numpy as np
from bnnumba.kernels import threaded, workers

@numba.njit(cache=True)
def moments(x):
    return threaded.moments(x)

moments(np.ones((1000, 300, 1), np.float32))
print(sum(moments.stats.cache_hits.values()), workers.state[workers.WORKERS // 8])
"""


def test_a_users_function_from_the_cache_starts_them(tmp_path):
    """In the second process nothing of the package's is compiled or loaded but what is in the user's own function."""
    program = tmp_path / "program.py"
    program.write_text(USER)
    for expected in ("0 2", "1 2"):
        printed = run_python(str(program), NUMBA_CACHE_DIR=str(tmp_path / "cache"), NUMBA_NUM_THREADS="3")
        assert printed.strip() == expected


END = """
import numpy as np
import bnnumba
from bnnumba import _threads
x = np.ones((1000, 300), np.float32)
bnnumba.moments(x)
_threads._end()  # as at the end of the process
for _ in range(3):
    assert (bnnumba.moments(x).mean == 1).all()
print("right")
"""


def test_calls_while_the_process_ends():
    assert run_python("-c", END, NUMBA_NUM_THREADS="3") == "right\n"
